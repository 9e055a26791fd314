"""A cascade's controls: the same members, chosen without looking."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cascades import Combination, ThresholdChooser
from runtime_pruning.datasets import ImageDataset, load
from runtime_pruning.deploy import CascadeBundle, read_bundle, write_bundle, write_cascade_bundle
from runtime_pruning.frontier import Provenance, Record, derive
from runtime_pruning.frontier.explanation import explain
from runtime_pruning.frontier.proof import Controls, control_path
from runtime_pruning.frontier.records import read_record
from runtime_pruning.methods.evaluation import measured
from runtime_pruning.methods.recording import record_of
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.sweeping.cascade_controls import best_sets, sets_of
from runtime_pruning.sweeping.config import ProofConfig
from runtime_pruning.sweeping.proving import Subject, measure_controls

SHAPE = (1, 8, 8)
SUM = Combination(
    temperatures_M=np.ones(2), weights_SM=np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return load("digits")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, data: ImageDataset) -> CascadeBundle:
    """Two untrained networks; about half of the images go on to the second."""
    folder = tmp_path_factory.mktemp("bundle")
    networks = [
        trace(
            backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=seed),
            SHAPE,
            groups=2,
            align=4,
        ).eval()
        for seed in (0, 1)
    ]
    members = [
        partial(write_bundle, network=network, policy=policy, backbone="digits-cnn", align=4)
        for network, policy in zip(
            networks, (FixedPolicy([1, 1, 1]), FixedPolicy([2, 2, 2])), strict=True
        )
    ]
    run = partial(networks[0].execute, policy=FixedPolicy([1, 1, 1]))
    seen = measured(run, data.validation, torch.device("cpu"))
    sure_N = np.exp(seen.log_probabilities_BA.max(axis=1).astype(np.float64))
    chooser = ThresholdChooser((0, 1), (float(np.median(sure_N)),))
    write_cascade_bundle(folder, members, SUM, chooser, backbone="digits-cnn")
    found = read_bundle(folder)
    assert isinstance(found, CascadeBundle)
    return found


@pytest.fixture(scope="module")
def record(bundle: CascadeBundle, data: ImageDataset) -> Record:
    facts = measured(bundle.execute, data.validation, bundle.device)
    return record_of(facts, data.validation, content=data.content_hash())


def test_controls_run_the_same_members_on_other_images(
    bundle: CascadeBundle, record: Record, data: ImageDataset, tmp_path: Path
) -> None:
    sets_N = sets_of(bundle, record)
    assert set(sets_N.tolist()) == {1, 3}
    provenance = Provenance(
        sweep_id="s",
        config={},
        index=0,
        method="cascade",
        backbone="digits-cnn",
        dataset="digits",
        seed=0,
        groups=2,
        dense_macs=1000,
    )
    point = derive(record, provenance)
    subject = Subject(point=point, record=record, bundle=bundle, data=data)
    settings = ProofConfig(seeds=2, oracle_images=50, search_images=300)
    measure_controls(subject, tmp_path, settings, 256)
    controls = Controls.read(tmp_path)
    for control in (*controls.shuffled, *controls.random):
        # A threshold costs no MACs, so that nothing but the order changes.
        assert control.executed_macs_N.sum() == record.executed_macs_N.sum()
        assert not np.array_equal(control.executed_macs_N, record.executed_macs_N)
        ran_M = [(sets_of(bundle, control) >> member & 1).sum() for member in (0, 1)]
        assert ran_M == [(sets_N >> member & 1).sum() for member in (0, 1)]
    facts = json.loads((tmp_path / "controls.json").read_text())
    assert facts["shown"] == [0, 3]
    for number, chosen in enumerate(facts["fixed"]):
        fixed = read_record(control_path(tmp_path, "fixed", number))
        assert set(sets_of(bundle, fixed).tolist()) == {chosen}
    # No fixed point of a sweep is known here: each member alone is held against the cascade, too.
    assert len(controls.fixed) == len(facts["fixed"]) + len(bundle.members)
    assert controls.threshold == ()  # it is one itself
    oracle = read_record(tmp_path / "oracle.parquet")
    rows_N = np.isin(record.image_ids_N, oracle.image_ids_N)
    assert len(oracle) == 50
    assert oracle.correct_N.sum() >= record.correct_N[rows_N].sum()
    # What is shown of the decisions: a row per member, none of its channels or some.
    dynamics = explain(point, record, tmp_path, None, data.info.classes)
    first, second = dynamics.decisions.sites
    assert (first.channels[0], second.channels[0]) == (0, 0)
    assert first.shares[0] == 0
    assert second.shares[0] == pytest.approx((sets_N == 1).mean())
    # Measured once: a second call leaves the files as they are.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    measure_controls(subject, tmp_path, settings, 256)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (40, [1]),  # nothing is as cheap: the cheapest
        (100, [1, 2]),  # half of each: 0.65, where set 1 alone has 0.5
        (160, [2]),  # 0.8, and no mixture with dearer sets is better
        (300, [2]),
    ],
)
def test_the_best_sets_at_a_budget(budget: float, expected: list[int]) -> None:
    accuracy_S, macs_S = np.array([0.1, 0.5, 0.8, 0.7]), np.array([0.0, 50, 150, 200])
    assert best_sets(accuracy_S, macs_S, budget) == expected
