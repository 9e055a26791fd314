"""Gates learn what to close on what it costs; the pruned network meets its target."""

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.cost.predictor import Survey, find_predictor
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.datasets import load
from runtime_pruning.methods import Effort, Task, WGates, WGatesConfig
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.w_gates import open_channels, train_gates
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import kept_channels
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train
from runtime_pruning.network.weight_gates import GatedBackbone

DATA = load("digits")
SHAPE = (1, 8, 8)
BRIEF = FinetuneConfig(epochs=2, batch_size=32, lr=0.05)


@pytest.fixture(scope="module")
def trained() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
    dense = trace(backbone, SHAPE, groups=2, align=4)
    train(
        dense, DATA.training, TrainConfig(epochs=4, batch_size=32, any_width=False), progress=False
    )
    return dense


def task(dense: PrunableNetwork, **changes: Any) -> Task:
    settings = {"network": dense, "dense": dense, "data": DATA, "data_ref": None, "seed": 0}
    return Task(**{**settings, "dense_effort": Effort(epochs=4), **changes})


def test_the_pruned_network_meets_its_target_and_still_reads(trained: PrunableNetwork) -> None:
    config = WGatesConfig(
        target=0.5, efficiency="macs", weight=4.0, multiple=2, gating=BRIEF, finetune=BRIEF
    )
    found = []

    def report(policy: Any, network: Any, effort: Effort, **_: Any) -> None:
        facts = judge(network, policy, DATA.validation)
        accuracy = float((facts.predictions_B == DATA.validation.labels_N).mean())
        found.append((network, accuracy, effort))

    WGates().fit(task(trained), config, report)
    ((network, accuracy, effort),) = found
    assert 0.4 * dense_macs(trained) < dense_macs(network) <= 0.5 * dense_macs(trained)
    assert kept_channels(network.backbone)
    assert accuracy > 0.85
    assert effort.epochs == 4 + 2 + 2
    WGates().fit(task(trained, points_done=1), config, report)
    assert len(found) == 1


def test_gates_close_under_the_efficiency_term_and_stay_open_without(
    trained: PrunableNetwork,
) -> None:
    macs = PrunedMacs(trained.backbone, SHAPE)
    costs = {}
    for weight in (0.0, 8.0):
        backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
        backbone.load_state_dict(trained.backbone.state_dict())
        gated = GatedBackbone(backbone, macs.groups)
        config = WGatesConfig(efficiency="macs", weight=weight, gating=BRIEF)
        train_gates(gated, task(trained), config, macs, 0.3, 0)
        with torch.no_grad():
            gated(torch.zeros(1, *SHAPE))
        costs[weight] = float(macs(gated.widths())) / macs.dense
    assert costs[8.0] < 0.6
    assert costs[8.0] < costs[0.0] - 0.1


def test_milliseconds_are_a_target_as_macs_are(trained: PrunableNetwork, tmp_path: Path) -> None:
    """The predictor is real, and of this device; only how much it measures is small."""
    survey = Survey(configurations=10, calls=3, steps=50)
    predictor = find_predictor(trained.backbone, SHAPE, survey, tmp_path)
    gated = GatedBackbone(trained.backbone, predictor.groups)
    narrowest = predictor([4, 4, 4, 4])
    target = max(0.9, 1.01 * narrowest / predictor.dense)
    keep = open_channels(gated, WGatesConfig(multiple=4), predictor, target)
    assert predictor([len(channels) for channels in keep.values()]) <= target * predictor.dense
