"""Small four-convolution networks, for scikit-learn's digits and for the cluttered ones.

All convolutions are 3x3 with padding 1, followed by batch norm and ReLU.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise, conv_stack

PIXEL_MEAN, PIXEL_STD = 0.305, 0.376  # of the digits, in [0, 1]
WIDTHS = (8, 16, 16, 32)
CLUTTERED_MEAN, CLUTTERED_STD = 0.267, 0.232  # of the training images
CLUTTERED_WIDTHS = (16, 32, 32, 64)


@register("digits-cnn")
def digits_cnn(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return conv 8, conv 16, pool, conv 16, conv 32, pool, global average, linear.

    Images must be at least 4x4 pixels, for two poolings. So narrow that widths matter: at a
    quarter of them some digits are lost, which leaves a policy something to decide.
    """
    channels = image_shape[0]
    return nn.Sequential(
        OrderedDict(
            normalise=Normalise([PIXEL_MEAN] * channels, [PIXEL_STD] * channels),
            **conv_stack(channels, WIDTHS, pools=(2, 4)),
            **_head(WIDTHS[-1], num_classes),
        )
    )


@register("cluttered-digits-cnn")
def cluttered_digits_cnn(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return conv 16, pool, conv 32, pool, conv 32, conv 64, global average, linear.

    Images must be at least 4x4 pixels, for two poolings. At a quarter of the widths it loses
    about one easy image in fifty, and one hard image in ten.
    """
    return cluttered_network(CLUTTERED_WIDTHS, num_classes, image_shape[0])


def cluttered_network(widths: Sequence[int], num_classes: int = 10, channels: int = 1) -> nn.Module:
    """Return `cluttered_digits_cnn` at other widths."""
    return nn.Sequential(
        OrderedDict(
            normalise=Normalise([CLUTTERED_MEAN] * channels, [CLUTTERED_STD] * channels),
            **conv_stack(channels, widths, pools=(1, 2)),
            **_head(widths[-1], num_classes),
        )
    )


def _head(width: int, num_classes: int) -> "OrderedDict[str, nn.Module]":
    """Return global average pooling and a linear layer."""
    return OrderedDict(
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(width, num_classes),
    )
