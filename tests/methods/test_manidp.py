"""ManiDP as a method: one point, that runs as it is recorded and bundled, and is not made twice."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime_pruning import backbones, datasets, methods
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets.cache import CACHE_ENV
from runtime_pruning.deploy import read_bundle, write_bundle
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, ManidpConfig, Task
from runtime_pruning.methods.manidp import mean_loss
from runtime_pruning.methods.recording import measure
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.saliency import SubsetPolicy, saliency_policy
from runtime_pruning.network.subset_run import SubsetExecution, subset_macs
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

CONFIG = ManidpConfig(keep=0.6, epochs=3, batch_size=64, precision="float32")


@pytest.fixture(scope="module")
def task() -> Task:
    data = datasets.load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=data.info.image_shape)
    network = trace(backbone, data.info.image_shape, groups=4, align=4)
    dense = TrainConfig(epochs=4, batch_size=64, lr=0.1, any_width=False)
    train(network, data.training, dense, progress=False)
    return Task(
        network=network,
        dense=network,
        data=data,
        data_ref=None,
        seed=0,
        pad=1,
        dense_effort=Effort(epochs=4),
    )


Point = tuple[SubsetPolicy, PrunableNetwork, Effort]


def points(given: Task, config: ManidpConfig = CONFIG) -> list[Point]:
    found: list[Point] = []

    def report(policy: Any, network: PrunableNetwork, effort: Effort, **_: Any) -> None:
        found.append((policy, network, effort))

    methods.get("manidp")().fit(given, config, report)
    return found


@pytest.fixture(scope="module")
def point(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Point:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_ENV, str(tmp_path_factory.mktemp("cache")))
        before = copy.deepcopy(task.dense.state_dict())
        ((policy, network, effort),) = points(task)
        # Once more: the checkpoint says that all is done, and the outcome is the same.
        ((again, _, _),) = points(task)
    assert all(
        torch.equal(before[name], tensor) for name, tensor in task.dense.state_dict().items()
    )
    assert torch.equal(policy.thresholds_L, again.thresholds_L)
    assert effort.epochs == 4 + 3
    return policy, network, effort


def test_a_point_is_recorded_with_the_channels_that_ran_and_their_macs(
    task: Task, point: Point
) -> None:
    policy, network, _ = point
    split = task.data.validation
    record, analytic = measure(network, policy, split, 50)
    assert (record.predictions_N == record.labels_N).mean() > 0.8
    spent_N = subset_macs(network, torch.tensor(record.channels_NL)) + policy.macs_per_image
    assert record.executed_macs_N.tolist() == spent_N.tolist()
    assert analytic == pytest.approx(record.executed_macs_N.mean())
    assert analytic < 0.95 * dense_macs(network)
    assert (np.ptp(record.channels_NL, axis=0) > 0).all()  # images differ


def test_a_bundle_of_subsets_does_what_was_bundled(
    task: Task, point: Point, tmp_path: Path
) -> None:
    policy, network, _ = point
    write_bundle(tmp_path, network, policy, backbone="digits-cnn", align=4)
    bundle = read_bundle(tmp_path)
    assert bundle.policy.name == policy.name == "salient channels, keep 0.6"
    images_BCHW = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.execute(images_BCHW, policy)
        found = bundle.network.execute(images_BCHW, bundle.policy)
    assert isinstance(expected, SubsetExecution)
    assert isinstance(found, SubsetExecution)
    assert torch.equal(found.logits_BK, expected.logits_BK)
    assert all(map(torch.equal, found.kept, expected.kept))
    assert torch.equal(found.total_macs_B, expected.total_macs_B)


def test_what_is_recorded_is_not_trained_again(task: Task) -> None:
    assert points(Task(**{**vars(task), "points_done": 1})) == []


def test_the_first_bound_is_the_loss_before_training(task: Task) -> None:
    policy = saliency_policy(task.dense)
    for branch in range(3):
        policy.branch(branch).expand.weight.data.zero_()  # saliencies of one: the dense network
    plain = CONFIG.training(Task(**{**vars(task), "pad": 0}))
    images = task.data.training
    logits_NK = task.dense(datasets.to_float(images.images_NCHW))
    labels_N = torch.from_numpy(images.labels_N.copy())
    expected = torch.nn.functional.cross_entropy(logits_NK, labels_N)
    found = mean_loss(task.dense, policy, images, plain)
    assert found == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.0}, "`0 < keep <= 1` must hold, but got 0.0."),
        ({"epochs": 0}, "`epochs >= 1` must hold, but got 0."),
        ({"clamp": 0.0}, "`clamp > 0` must hold, but got 0.0."),
        ({"sparsity": -1.0}, "`sparsity >= 0` must hold, but got -1.0."),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ManidpConfig(**settings)
    assert message in str(caught.value)
