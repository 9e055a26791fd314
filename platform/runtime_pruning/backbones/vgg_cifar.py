"""VGG for CIFAR: batch norm after each convolution, and one linear layer instead of three.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1 (columns A,
D and E); batch norm and the single linear layer are what CIFAR implementations use.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise
from runtime_pruning.backbones.mcifarnet import CIFAR_MEAN, CIFAR_STD

WIDTHS = (64, 128, 256, 512, 512)  # of the five blocks, a 2x2 max-pool after each


@register("vgg11-cifar")
def vgg11_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return VGG-11: 9.22 M weights, 153 M MACs on 32x32 pixels."""
    return _vgg((1, 1, 2, 2, 2), num_classes, image_shape[0])


@register("vgg16-cifar")
def vgg16_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return VGG-16: 14.72 M weights, 313 M MACs on 32x32 pixels."""
    return _vgg((2, 2, 3, 3, 3), num_classes, image_shape[0])


@register("vgg19-cifar")
def vgg19_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return VGG-19: 20.02 M weights, 398 M MACs on 32x32 pixels."""
    return _vgg((2, 2, 4, 4, 4), num_classes, image_shape[0])


def _vgg(depths: Sequence[int], num_classes: int, channels: int) -> nn.Module:
    """Return blocks of 3x3 convolutions; images must be at least 32x32 pixels, for five pools."""
    known = channels == len(CIFAR_MEAN)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(
        CIFAR_MEAN if known else [0.5] * channels, CIFAR_STD if known else [0.25] * channels
    )
    for block, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
        for place in (f"{block}_{index}" for index in range(1, depth + 1)):
            layers[f"conv{place}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"bn{place}"] = nn.BatchNorm2d(width)
            layers[f"relu{place}"] = nn.ReLU()
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
