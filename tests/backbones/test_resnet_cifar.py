"""CIFAR ResNets as they were published: sizes worked out by hand."""

from collections.abc import Callable

import pytest
from torch import nn

from runtime_pruning import backbones

CIFAR = (3, 32, 32)


def create(name: str, image_shape: tuple[int, int, int] = CIFAR) -> nn.Module:
    return backbones.create(name, num_classes=10, image_shape=image_shape)


Count = Callable[[str, tuple[int, int, int]], tuple[int, int]]


@pytest.mark.parametrize(
    ("name", "conv", "parameters"),
    [
        ("resnet20-cifar", 40_550_400, 269_722),
        ("resnet32-cifar", 68_861_952, 464_154),
        ("resnet56-cifar", 125_485_056, 853_018),
    ],
)
def test_a_resnet_has_the_published_size(
    name: str, conv: int, parameters: int, executed_macs: Count
) -> None:
    # Each convolution inside a layer costs 16 * 16 * 9 * 1,024 = 2,359,296 MACs: widths double
    # where resolutions halve. The two that widen cost half of that. The stem: 3 * 16 * 9 * 1,024.
    # ResNet-20 has 18 - 2 of the first kind: 16 * 2,359,296 + 2 * 1,179,648 + 442,368, and
    # each step of depth by 12 adds 12 more.
    backbone = create(name)
    assert executed_macs(name, CIFAR) == (conv, 640)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
