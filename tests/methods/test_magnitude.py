"""The strongest channels stay, within the budget; what is reported is a network of its own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, Magnitude, MagnitudeConfig, Task, Vanilla, VanillaConfig
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.vanilla import AloneConfig
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import kept_channels
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

DATA = load("digits")
SHAPE = (1, 8, 8)
BRIEF = FinetuneConfig(epochs=1, batch_size=64)


class Reported:
    """Keeps what a method reports."""

    def __init__(self) -> None:
        self.network: Any = None
        self.policy: Any = None
        self.effort = Effort()
        self.count = 0

    def __call__(self, policy: Any, network: Any, effort: Effort, **_: Any) -> None:
        self.policy, self.network, self.effort = policy, network, effort
        self.count += 1

    def accuracy(self) -> float:
        facts = judge(self.network, self.policy, DATA.validation)
        return float((facts.predictions_B == DATA.validation.labels_N).mean())


def task(dense: PrunableNetwork, **changes: Any) -> Task:
    settings = {
        "network": copy.deepcopy(dense),
        "dense": dense,
        "data": DATA,
        "data_ref": None,
        "seed": 0,
        "backbone": "digits-cnn",
        "dense_effort": Effort(epochs=1.5, train_seconds=1),
    }
    return Task(**{**settings, **changes})


def network(seed: int = 0) -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=seed)
    return trace(backbone, SHAPE, groups=2, align=4)


@pytest.fixture(scope="module")
def trained() -> PrunableNetwork:
    dense = network()
    config = TrainConfig(epochs=4, batch_size=32, any_width=False)
    train(dense, DATA.training, config, progress=False)
    return dense


def test_a_pruned_network_keeps_its_accuracy_at_half_the_macs(
    trained: PrunableNetwork, tmp_path: Path
) -> None:
    found = Reported()
    config = MagnitudeConfig(
        macs=0.5, multiple=2, finetune=FinetuneConfig(epochs=3, batch_size=32, lr=0.05)
    )
    Magnitude().fit(task(trained, work=tmp_path / "work"), config, found)
    assert (tmp_path / "work" / "training-0.pt").is_file()
    assert 0.4 * dense_macs(trained) < dense_macs(found.network) <= 0.5 * dense_macs(trained)
    assert found.accuracy() > 0.85
    assert found.effort.epochs == 1.5 + 3
    assert found.policy.groups_L.tolist() == [1, 1, 1]


def test_the_channels_of_the_largest_norms_stay() -> None:
    """Some channels' weights are made ten times what they are, written and read."""
    dense, strong = network(), [1, 4, 6, 7, 8, 11, 13, 14]
    with torch.no_grad():
        dense.backbone.conv2.weight[strong] *= 10
        dense.backbone.conv3.weight[:, strong] *= 10
    found = Reported()
    config = MagnitudeConfig(macs=0.4, multiple=8, norm="l1", finetune=BRIEF)
    Magnitude().fit(task(dense), config, found)
    assert kept_channels(found.network.backbone)["conv2"] == strong


def test_ranked_widths_differ_between_groups_and_keep_the_least() -> None:
    dense = network()
    with torch.no_grad():  # half of the channels tower above all others of this group
        dense.backbone.conv4.weight[:16] *= 100
    found = Reported()
    settings = FinetuneConfig(epochs=0)
    config = MagnitudeConfig(macs=0.6, multiple=1, widths="ranked", least=0.5, finetune=settings)
    Magnitude().fit(task(dense), config, found)
    kept = kept_channels(found.network.backbone)
    assert len(kept["conv4"]) == 16
    assert all(len(kept.get(name, range(99))) >= 8 for name in ("conv2", "conv3"))
    assert dense_macs(found.network) <= 0.6 * dense_macs(dense)
    assert found.effort.epochs == 1.5


def test_an_interrupted_run_reports_the_rest_of_its_targets() -> None:
    found, shares, dense = Reported(), (0.8, 0.5, 0.4), network()
    given = task(dense, points_done=2)
    settings = FinetuneConfig(epochs=0)
    Magnitude().fit(given, MagnitudeConfig(macs=shares, multiple=1, finetune=settings), found)
    assert found.count == 1
    assert 0.3 * dense_macs(dense) < dense_macs(found.network) <= 0.4 * dense_macs(dense)
    Vanilla().fit(
        task(dense, points_done=3, dense_effort=Effort(epochs=1)), VanillaConfig(macs=shares), found
    )
    assert found.count == 1


@pytest.mark.parametrize("macs", [(), (0.5, 0.0), 1.5])
def test_shares_that_are_none_are_refused(macs: Any) -> None:
    with pytest.raises(ConfigError, match="macs"):
        MagnitudeConfig(macs=macs)


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(ConfigError, match=r"a share of 0\.010 cannot be reached"):
        Magnitude().fit(task(network()), MagnitudeConfig(macs=0.01, multiple=8), Reported())


def test_a_narrow_network_is_trained_from_chance_for_the_dense_effort() -> None:
    """Of 1.5 epochs two are made; nothing of the dense network is used."""
    dense = network(seed=5)
    for parameter in dense.parameters():
        parameter.data.fill_(float("nan"))
    found = Reported()
    config = VanillaConfig(macs=0.5, multiple=2, training=AloneConfig(batch_size=32))
    Vanilla().fit(task(dense), config, found)
    assert found.effort.epochs == 2
    assert dense_macs(found.network) <= 0.5 * dense_macs(dense)
    assert found.accuracy() > 0.5


def test_of_published_weights_no_effort_is_known() -> None:
    given = task(network(), dense_effort=Effort())
    with pytest.raises(ConfigError, match=r"`training\.epochs > 0` must hold"):
        Vanilla().fit(given, VanillaConfig(), Reported())
