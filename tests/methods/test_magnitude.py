"""The strongest channels stay, within the budget; what is reported is a network of its own."""

from pathlib import Path

import pytest
import torch
from static_methods import DATA, Reported, network, task

from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.methods import Magnitude, MagnitudeConfig
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import kept_channels
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

BRIEF = FinetuneConfig(epochs=1, batch_size=64)


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
