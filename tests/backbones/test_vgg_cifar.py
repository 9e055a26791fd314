"""VGG for CIFAR: sizes worked out by hand."""

import pytest
import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import trace

CIFAR = (3, 32, 32)

# Weights of the 3x3 convolutions by (in, out):
#   3 -> 64: 1,728    64 -> 64: 36,864    64 -> 128: 73,728    128 -> 128: 147,456
#   128 -> 256: 294,912    256 -> 256: 589,824    256 -> 512: 1,179,648    512 -> 512: 2,359,296
# VGG-11: 1,728 + 73,728 + 294,912 + 589,824 + 1,179,648 + 3 * 2,359,296 = 9,217,728
# VGG-16: 1,728 + 36,864 + 73,728 + 147,456 + 294,912 + 2 * 589,824 + 1,179,648
#         + 5 * 2,359,296 = 14,710,464
# VGG-19: one more 256 -> 256 and two more 512 -> 512 = 20,018,880
# and the linear layer: 512 * 10 = 5,120.
WEIGHTS = {
    "vgg11-cifar": 9_217_728 + 5_120,  # 9.22 M
    "vgg16-cifar": 14_710_464 + 5_120,  # 14.72 M
    "vgg19-cifar": 20_018_880 + 5_120,  # 20.02 M
}
# MACs on 32x32: the weights of a block times the pixels that it sees, 1,024, 256, 64, 16 and 4.
MACS = {
    "vgg11-cifar": 1_728 * 1_024
    + 73_728 * 256
    + (294_912 + 589_824) * 64
    + (1_179_648 + 2_359_296) * 16
    + 2 * 2_359_296 * 4
    + 5_120,
    "vgg16-cifar": (1_728 + 36_864) * 1_024
    + (73_728 + 147_456) * 256
    + (294_912 + 2 * 589_824) * 64
    + (1_179_648 + 2 * 2_359_296) * 16
    + 3 * 2_359_296 * 4
    + 5_120,
    "vgg19-cifar": (1_728 + 36_864) * 1_024
    + (73_728 + 147_456) * 256
    + (294_912 + 3 * 589_824) * 64
    + (1_179_648 + 3 * 2_359_296) * 16
    + 4 * 2_359_296 * 4
    + 5_120,
}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_it_has_the_size_that_methods_are_compared_on(name: str) -> None:
    backbone = backbones.create(name, num_classes=10, image_shape=CIFAR)
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(layer.weight.numel() for layer in layers) == WEIGHTS[name]
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 1
    depth = int(name.removeprefix("vgg").removesuffix("-cifar"))
    assert len(layers) == depth - 2  # the published networks have three linear layers
    assert isinstance(next(iter(backbone.children())), backbones.Normalise)
    network = trace(backbone, CIFAR)
    assert len(network.sites) == len(layers) - 2  # the first convolution is none
    assert dense_macs(network) == MACS[name]


def test_it_takes_other_colours_and_sizes() -> None:
    backbone = backbones.create("vgg11-cifar", num_classes=7, image_shape=(1, 48, 40))
    assert backbone(torch.rand(2, 1, 48, 40)).shape == (2, 7)
    with pytest.raises(ConfigError, match=r"'vgg11-cifar' cannot take images of shape \(3, 16"):
        backbones.create("vgg11-cifar", num_classes=7, image_shape=(3, 16, 16))
