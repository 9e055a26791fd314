"""The method reports cascades of its members' facts, and they run as their records say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from runtime_pruning import backbones, methods
from runtime_pruning.config import build_config
from runtime_pruning.datasets import ImageDataset, load
from runtime_pruning.deploy import CascadeBundle, read_bundle, write_bundle
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.methods import CascadeConfig, Effort, KnownPoint, Sources, Task
from runtime_pruning.methods.cascade_members import Elsewhere, Member, chosen, find_elsewhere
from runtime_pruning.methods.evaluation import measured
from runtime_pruning.methods.recording import measure, record_of
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, Policy
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

SHAPE = (1, 8, 8)


class Told(NamedTuple):
    """One report."""

    point: KnownPoint
    effort: Effort


class Kept:
    """A report that keeps what it is told."""

    def __init__(self, data: ImageDataset) -> None:
        self.data = data
        self.told: list[Told] = []

    def __call__(self, *_: Any, **__: Any) -> None:
        raise AssertionError("A cascade's points are known.")

    def measure(self, policy: Policy, network: PrunableNetwork) -> KnownPoint:
        content = self.data.content_hash()
        validation, policy_record = (
            measure(network, policy, split, 256, content=content)[0]
            for split in (self.data.validation, self.data.policy)
        )

        def write(folder: Path) -> None:
            write_bundle(folder, network, policy, backbone="digits-cnn", align=4)

        return KnownPoint(
            validation=validation, policy=policy_record, groups=network.groups, write_bundle=write
        )

    def known(
        self,
        point: KnownPoint,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        self.told.append(Told(point, effort))


@pytest.fixture(scope="module")
def task() -> Task:
    """A network of digits whose widths have learned for four passes."""
    data = load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=1)
    dense = trace(backbone, SHAPE, groups=4, align=4)
    settings = TrainConfig(epochs=4, batch_size=64, lr=0.05, pad=0, flip=False, any_width=True)
    train(dense, data.training, settings, progress=False)
    return Task(
        network=dense.regroup(4, 4).eval(),
        dense=dense.eval(),
        data=data,
        data_ref=None,
        seed=0,
        network_effort=Effort(epochs=4),
        dense_effort=Effort(epochs=1),
        backbone="digits-cnn",
    )


def fitted(task: Task, **settings: Any) -> list[Told]:
    report = Kept(task.data)
    config = build_config(CascadeConfig, {"calibration_batches": 1, **settings}, where="test")
    methods.get("cascade")().fit(task, config, report)
    return report.told


@pytest.fixture(scope="module")
def by_threshold(task: Task) -> list[Told]:
    return fitted(task, dials=5, most=3)


def test_thresholds_give_the_whole_curve_cheapest_first(by_threshold: list[Told]) -> None:
    # Of five, those that run one member alone are left out: they are that member's own points.
    assert 3 <= len(by_threshold) <= 5
    assert {told.point.validation.num_sites for told in by_threshold} <= {6, 9}
    macs = [told.point.policy.executed_macs_N.mean() for told in by_threshold]
    accuracy = [told.point.policy.correct_N.mean() for told in by_threshold]
    assert macs == sorted(macs)
    assert accuracy == sorted(accuracy)
    assert accuracy[-1] > accuracy[0] + 0.02
    assert {told.effort for told in by_threshold} == {Effort(epochs=4)}


def test_its_bundle_does_what_its_record_says(
    task: Task, by_threshold: list[Told], tmp_path: Path
) -> None:
    point = by_threshold[1].point
    assert len(np.unique(point.validation.executed_macs_N)) > 1  # it decides
    point.write_bundle(tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert isinstance(bundle, CascadeBundle)
    facts = measured(bundle.execute, task.data.validation, torch.device("cpu"))
    run = record_of(facts, task.data.validation, content=task.data.content_hash())
    known = point.validation
    same_N = run.executed_macs_N == known.executed_macs_N
    assert same_N.mean() > 0.99  # a confidence at the threshold may fall on either side
    np.testing.assert_array_equal(run.channels_NL[same_N], known.channels_NL[same_N])
    np.testing.assert_array_equal(run.predictions_N[same_N], known.predictions_N[same_N])
    np.testing.assert_allclose(run.losses_N[same_N], known.losses_N[same_N], atol=1e-3)


def test_an_interrupted_trial_reports_the_rest(task: Task, by_threshold: list[Told]) -> None:
    rest = fitted(replace(task, points_done=2), dials=5, most=3)
    expected = [told.point.validation.executed_macs_N.sum() for told in by_threshold[2:]]
    assert [told.point.validation.executed_macs_N.sum() for told in rest] == expected


def test_a_regression_pays_for_its_decisions(task: Task) -> None:
    told = fitted(task, chooser="regression", dials=2, most=2, penalty={"low": 0.01, "high": 5.0})
    dear, cheap = (each.point for each in told)
    assert (dear.penalty, cheap.penalty) == pytest.approx((5.0, 0.01))
    assert dear.validation.executed_macs_N.mean() < cheap.validation.executed_macs_N.mean()


def test_a_searched_penalty_gives_one_point(task: Task) -> None:
    (told,) = fitted(task, penalty=0.2, subset="0-2", most=3)
    assert told.point.validation.num_sites in (3, 6)


def test_trained_backbones_are_members(task: Task) -> None:
    shared = Elsewhere(stored=(), networks=(("zoo/x", "digits-cnn", task.dense, Effort(epochs=9)),))
    (told,) = fitted(replace(task, shared=shared), members=[], backbones=["zoo/x"], dials=2)
    assert told.effort == Effort(epochs=9)
    assert len(np.unique(told.point.validation.executed_macs_N)) == 1


def test_members_are_spread_over_the_cost_and_no_other_beats_them(task: Task) -> None:
    record = Kept(task.data).measure(FixedPolicy([1, 1, 1]), task.network).policy

    def member(name: str, right: float, macs: int) -> Member:
        images = 100
        wrong = np.arange(images) >= round(right * images)
        labels_N = np.where(wrong, 1, 0)
        answered = type(record).from_arrays(
            split="policy",
            image_ids_N=np.arange(images),
            labels_N=labels_N,
            predictions_N=np.zeros(images, np.int64),
            losses_N=np.zeros(images),
            channels_NL=np.ones((images, 1), np.int64),
            executed_macs_N=np.full(images, macs),
        )
        point = KnownPoint(
            validation=answered, policy=answered, groups=1, write_bundle=lambda folder: None
        )
        return Member(name, point, Effort())

    found = [
        member("cheap", 0.5, 100),
        member("near", 0.6, 120),
        member("beaten", 0.4, 400),
        member("middle", 0.7, 1000),
        member("dear", 0.9, 10_000),
    ]
    assert [each.name for each in chosen(found, 3)] == ["cheap", "middle", "dear"]
    assert [each.name for each in chosen(found, 8)] == ["cheap", "near", "middle", "dear"]
    with pytest.raises(DataError, match="its sources hold none"):
        chosen([], 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": [], "backbones": []}, "`members` or `backbones` must name a source"),
        ({"penalty": 0.0}, "`penalty > 0` must hold"),
        ({"most": 9}, r"`1 <= most <= 8` must hold"),
        ({"subset": "1,2"}, "subset"),
        ({"chooser": "oracle"}, "chooser"),
    ],
)
def test_settings_that_make_no_cascade_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(CascadeConfig, settings, where="test")


def test_a_member_that_there_is_not_is_named(task: Task) -> None:
    with pytest.raises(ConfigError, match=r"`subset` numbers 2 members from 0, but got '0-3'"):
        fitted(task, subset="0-3", most=2)


def test_a_network_of_the_zoo_that_is_not_trained_says_how(task: Task, tmp_path: Path) -> None:
    sources = Sources(data=task.data, folder=tmp_path, store=str(tmp_path))
    with pytest.raises(DataError, match=r"train it by `runtime-pruning train zoo/none.yaml`"):
        find_elsewhere((), ("zoo/none",), sources)
