"""The MACs that widths are said to cost are the MACs that the pruned network has."""

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import trace
from runtime_pruning.network.surgery import pruned


def test_a_chain_by_hand() -> None:
    """Of 8, 16, 16, 32 channels 4, 16, 3, 5 stay; 8x8, 8x8, 4x4, 4x4 pixels, then ten classes."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    macs = PrunedMacs(backbone, (1, 8, 8))
    by_hand = 9 * (64 * 4 * 1 + 64 * 16 * 4 + 16 * 3 * 16 + 16 * 5 * 3) + 10 * 5
    assert macs([4, 16, 3, 5]) == by_hand
    assert macs.dense == 9 * (64 * 8 + 64 * 16 * 8 + 16 * 16 * 16 + 16 * 32 * 16) + 10 * 32


@pytest.mark.parametrize("name", ["resnet20-cifar", "mobilenet_v2", "faces-cnn"])
def test_what_is_said_is_what_the_pruned_network_has(name: str) -> None:
    shape = (3, 32, 32)
    backbone = backbones.create(name, num_classes=10, image_shape=shape)
    macs = PrunedMacs(backbone, shape)
    widths_G = [1 + (7 * index) % group.channels for index, group in enumerate(macs.groups)]
    keep = {group.name: range(width) for group, width in zip(macs.groups, widths_G, strict=True)}
    network = trace(pruned(backbone, shape, keep).backbone.eval(), shape, groups=1)
    assert macs(widths_G) == dense_macs(network)
    full_G = [group.channels for group in macs.groups]
    both_2G = torch.tensor([widths_G, full_G])
    assert macs(list(both_2G.T)).tolist() == [macs(widths_G), macs.dense]
    assert macs.dense == dense_macs(trace(backbone, shape, groups=1))


def test_widths_with_gradients_tell_what_a_channel_costs() -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    macs = PrunedMacs(backbone, (1, 8, 8))
    widths_G = torch.tensor([4.0, 16.0, 3.0, 5.0], requires_grad=True)
    total = macs(list(widths_G))
    torch.autograd.backward(total)
    assert widths_G.grad is not None
    # One channel of the last layer: 16 pixels, 3 inputs, 9 taps, and ten classes.
    assert float(widths_G.grad[3]) == 16 * 3 * 9 + 10


def test_a_width_for_each_group() -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    with pytest.raises(ConfigError, match="each of 4 groups is needed, but got 2"):
        PrunedMacs(backbone, (1, 8, 8))([1, 2])
