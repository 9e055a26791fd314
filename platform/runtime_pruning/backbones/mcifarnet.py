"""M-CifarNet: the eight-convolution testbed of runtime pruning on CIFAR-10.

Source: Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019,
section 4.1; 1.29 M convolution weights and 174.3 M MACs on 32x32 pixels.
"""

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise

CIFAR_MEAN = (0.49140, 0.48216, 0.44653)  # training split, in [0, 1]
CIFAR_STD = (0.24703, 0.24349, 0.26159)


class _Conv(NamedTuple):
    width: int  # output channels
    stride: int
    padding: int


CONVS = (
    _Conv(64, stride=1, padding=0),
    _Conv(64, stride=1, padding=1),
    _Conv(128, stride=2, padding=1),
    _Conv(128, stride=1, padding=1),
    _Conv(128, stride=1, padding=1),
    _Conv(192, stride=2, padding=1),
    _Conv(192, stride=1, padding=1),
    _Conv(192, stride=1, padding=1),
)


@register("mcifarnet")
def mcifarnet(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return eight 3x3 convolutions with batch norm and ReLU, global average, linear.

    On 32x32 pixels the global average is the 8x8 pooling of the source. Images must be at least
    3x3 pixels, since the first convolution has no padding.
    """
    channels = image_shape[0]
    known = channels == len(CIFAR_MEAN)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(
        CIFAR_MEAN if known else [0.5] * channels, CIFAR_STD if known else [0.25] * channels
    )
    for index, (width, stride, padding) in enumerate(CONVS, start=1):
        layers[f"conv{index}"] = nn.Conv2d(
            channels, width, 3, stride=stride, padding=padding, bias=False
        )
        layers[f"bn{index}"] = nn.BatchNorm2d(width)
        layers[f"relu{index}"] = nn.ReLU()
        channels = width
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
