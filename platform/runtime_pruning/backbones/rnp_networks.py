"""The two small networks of the RNP paper's own experiments.

Source: Lin, Rao, Lu, Zhou, "Runtime Neural Pruning", NeurIPS 2017, section 4, as recalled: kernels
of 3x3 pixels, 32, 32 and 64 channels and two linear layers for faces, four convolutions for CIFAR.
All else is chosen here: batch norm, where the pools stand, the linear layers' width, the CIFAR
network's widths.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise, conv_stack
from runtime_pruning.backbones.mcifarnet import CIFAR_MEAN, CIFAR_STD
from runtime_pruning.errors import ConfigError

FACES_WIDTHS = (32, 32, 64)
FACES_HIDDEN = 64
CIFAR_WIDTHS = (64, 64, 128, 128)


@register("faces-cnn")
def faces_cnn(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return conv 32, conv 32, conv 64, a pool after each, linear 64, linear: 4.5 M MACs on 32x32.

    Images must be at least 8x8 pixels, for three poolings.
    """
    channels, height, width = image_shape
    pixels = (height // 8) * (width // 8)
    if not pixels:
        raise ConfigError(f"'faces-cnn' takes images of 8x8 pixels or more, but got {image_shape}.")
    layers = _normalised(channels)
    layers.update(conv_stack(channels, FACES_WIDTHS, pools=(1, 2, 3)))
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(FACES_WIDTHS[-1] * pixels, FACES_HIDDEN)
    layers["relu_linear1"] = nn.ReLU()
    layers["linear2"] = nn.Linear(FACES_HIDDEN, num_classes)
    return nn.Sequential(layers)


@register("rnp-cifar")
def rnp_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return conv 64, 64, pool, 128, 128, pool, global average, linear: 96 M MACs on 32x32.

    Images must be at least 4x4 pixels, for two poolings.
    """
    channels = image_shape[0]
    layers = _normalised(channels)
    layers.update(conv_stack(channels, CIFAR_WIDTHS, pools=(2, 4)))
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(CIFAR_WIDTHS[-1], num_classes)
    return nn.Sequential(layers)


def _normalised(channels: int) -> "OrderedDict[str, nn.Module]":
    """Return the first layer: CIFAR's statistics for colour, which suit photographs at large."""
    mean: Sequence[float] = CIFAR_MEAN if channels == len(CIFAR_MEAN) else [0.5] * channels
    std: Sequence[float] = CIFAR_STD if channels == len(CIFAR_STD) else [0.25] * channels
    return OrderedDict(normalise=Normalise(mean, std))
