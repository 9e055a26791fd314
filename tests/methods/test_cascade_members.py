"""Members from elsewhere: points of folders, of other sweeps in MLflow, networks of the zoo."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import ImageDataset, load
from runtime_pruning.deploy import read_bundle, write_bundle
from runtime_pruning.errors import DataError
from runtime_pruning.files import save_tensors, write_text
from runtime_pruning.frontier.points import Provenance, derive
from runtime_pruning.frontier.records import write_record
from runtime_pruning.glossary import BUNDLE, POINT, POLICY_RECORD, RECORD
from runtime_pruning.methods import Effort, Sources, Task
from runtime_pruning.methods.cascade_members import Elsewhere, find_elsewhere, gather
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.sweeping.trial import measure
from runtime_pruning.tracking.mlflow_store import FrontierTracker

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return load("digits")


@pytest.fixture(scope="module")
def network() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=4)
    return trace(backbone, SHAPE, groups=2, align=4).eval()


def point_folder(
    folder: Path, network: PrunableNetwork, groups: int, data: ImageDataset, index: int = 0
) -> Any:
    """Write a point as a sweep does, and return it."""
    policy, content = FixedPolicy([groups] * 3), data.content_hash()
    validation, learned = (
        measure(network, policy, split, 256, content=content)[0]
        for split in (data.validation, data.policy)
    )
    provenance = Provenance(
        sweep_id="earlier",
        config={"method": "fixed-width"},
        index=index,
        method="fixed-width",
        backbone="digits-cnn",
        dataset="digits",
        seed=0,
        groups=2,
        dense_macs=dense_macs(network),
        epochs=5,
    )
    point = derive(validation, provenance)
    folder.mkdir(parents=True)
    write_record(validation, folder / RECORD)
    write_record(learned, folder / POLICY_RECORD)
    write_text(folder / POINT, point.to_json())
    write_bundle(folder / BUNDLE, network, policy, backbone="digits-cnn", align=4)
    return point


def task(network: PrunableNetwork, data: ImageDataset, **changes: Any) -> Task:
    return Task(network=network, dense=network, data=data, data_ref=None, seed=0, **changes)


def test_points_of_the_controls_are_members(
    network: PrunableNetwork, data: ImageDataset, tmp_path: Path
) -> None:
    folders = tuple(tmp_path / str(groups) for groups in (2, 1))
    for groups, folder in zip((2, 1), folders, strict=True):
        point_folder(folder, network, groups, data)
    given = task(network, data, control_points=folders)
    cheap, dear = gather(given, ["controls"], 0, report=None)  # type: ignore[arg-type]
    assert cheap.point.policy.executed_macs_N[0] < dear.point.policy.executed_macs_N[0]
    assert cheap.effort == Effort(epochs=5)
    cheap.point.write_bundle(tmp_path / "copy")
    assert read_bundle(tmp_path / "copy").policy.groups_L.tolist() == [1, 1, 1]


@pytest.fixture
def store(network: PrunableNetwork, data: ImageDataset, tmp_path: Path) -> str:
    """An MLflow store with a finished sweep of two points."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = FrontierTracker(uri, "frontier", "earlier", tmp_path / "spool", report_dir=tmp_path)
    tracker.start_sweep({})
    for index, groups in enumerate((1, 2)):
        folder = tmp_path / "points" / str(index)
        point = point_folder(folder, network, groups, data, index)
        tracker.log_point(
            point, folder / RECORD, folder / BUNDLE, policy_record=folder / POLICY_RECORD
        )
    tracker.finish("FINISHED")
    return uri


def test_points_of_a_finished_sweep_are_members(
    store: str, data: ImageDataset, tmp_path: Path
) -> None:
    sources = Sources(data=data, folder=tmp_path / "sweep", store=store)
    for _ in range(2):  # a sweep that goes on finds the bundles where they are
        found = find_elsewhere(("own", "earlier"), (), sources)
        assert isinstance(found, Elsewhere)
    names = [member.name.partition("/")[0] for member in found.stored]
    assert set(names) == {"earlier"}
    member = found.stored[0]
    bundle_folder = tmp_path / "copied"
    member.point.write_bundle(bundle_folder)
    bundle = read_bundle(bundle_folder)
    with torch.inference_mode():
        macs = bundle.execute(torch.rand(1, *SHAPE)).total_macs_B
    assert int(macs) == int(member.point.validation.executed_macs_N[0])


def test_a_sweep_on_other_data_is_refused(store: str, data: ImageDataset, tmp_path: Path) -> None:
    other = replace(data, policy=data.policy.head(100))
    sources = Sources(data=other, folder=tmp_path / "sweep", store=store)
    with pytest.raises(DataError, match=r"same data, 'digits' with content .* sweep 'earlier' is"):
        find_elsewhere(("earlier",), (), sources)


def test_a_sweep_that_there_is_not_is_named(store: str, data: ImageDataset, tmp_path: Path) -> None:
    sources = Sources(data=data, folder=tmp_path / "sweep", store=store)
    with pytest.raises(DataError, match="Sweep 'later' holds no point"):
        find_elsewhere(("later",), (), sources)


def test_a_network_of_the_zoo_brings_its_weights_and_effort(
    data: ImageDataset, tmp_path: Path
) -> None:
    made = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=9)
    weights = tmp_path / "small.safetensors"
    save_tensors(made.state_dict(), weights)
    facts = {"backbone": "digits-cnn", "epochs": 7, "hours": 0.5}
    facts["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "small.json").write_text(json.dumps(facts))
    sources = Sources(data=data, folder=tmp_path, store="unused")
    found = find_elsewhere((), (str(tmp_path / "small"),), sources)
    assert found is not None
    ((_, backbone, network, effort),) = found.networks
    assert (backbone, effort) == ("digits-cnn", Effort(epochs=7, train_seconds=1800))
    images_BCHW = torch.rand(3, *SHAPE)
    with torch.inference_mode():
        torch.testing.assert_close(network(images_BCHW), made.eval()(images_BCHW))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match="is damaged"):
        find_elsewhere((), (str(tmp_path / "small"),), sources)
