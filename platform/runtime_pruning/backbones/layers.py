"""Modules that the built-in backbones share, beyond those of ``torch.nn``.

Dimensions: B images, C and D channels, H W pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.errors import ConfigError


class Normalise(nn.Module):
    """Shift and scale each colour channel: the pixel normalisation that belongs to a backbone.

    The constants are non-persistent buffers: they follow ``.to()`` and stay out of the state dict,
    so that published weights load strictly.

    Args:
        mean: of each channel, in units of [0, 1].
        std: of each channel, same unit, above zero.

    Raises:
        ConfigError: lengths differ, or a deviation is not above zero.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ConfigError(f"`len(mean) == len(std)` must hold, but got {mean} and {std}.")
        if min(std) <= 0:
            raise ConfigError(f"`std > 0` must hold for each channel, but got {std}.")
        self.register_buffer("mean_C11", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return images with mean 0 and deviation 1 per channel, same shape."""
        return (images_BCHW - self.mean_C11) / self.std_C11


class SubsampleShortcut(nn.Module):
    """Option A of residual networks: keep each second pixel, pad the new channels with zeros.

    It has no parameters and costs no MACs. Channel ``c`` of the input becomes channel
    ``c + pad_front`` of the output.
    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 3.3.

    Args:
        in_planes: channels of the input.
        planes: channels of the output; the difference must be even, and is split on both ends.
    """

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        if planes < in_planes or (planes - in_planes) % 2:
            raise ConfigError(
                "`planes - in_planes` must be even and not negative, "
                f"but got (in_planes={in_planes}, planes={planes})."
            )
        self.in_planes = in_planes
        self.planes = planes
        self.pad_front = (planes - in_planes) // 2

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return the subsampled features, shape (B, planes, ceil(H / 2), ceil(W / 2))."""
        pad = self.pad_front
        return functional.pad(features_BCHW[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))

    def extra_repr(self) -> str:
        """Return the channel counts, for ``print``."""
        return f"{self.in_planes}, {self.planes}"


class SelectingShortcut(nn.Conv2d):
    """Option A after surgery: what is left of each channel goes where it went before.

    A convolution of one pixel with weights 0 and 1 that do not learn: it costs some MACs, and far
    less time than channels that are gathered one by one.

    Args:
        in_planes: channels of the input.
        sources_C: for each channel of the output the channel of the input that it continues; -1
            where it is zero.
    """

    def __init__(self, in_planes: int, sources_C: Sequence[int]) -> None:
        if not sources_C or min(sources_C) < -1 or max(sources_C) >= in_planes:
            raise ConfigError(
                f"`-1 <= source < {in_planes}` must hold for each channel, but got "
                f"{list(sources_C)}."
            )
        super().__init__(in_planes, len(sources_C), 1, stride=2, bias=False)
        self.weight.requires_grad_(False).zero_()
        for channel, source in enumerate(sources_C):
            if source >= 0:
                self.weight[channel, source] = 1

    @property
    def sources_C(self) -> list[int]:
        """For each channel of the output the channel of the input that it continues, or -1."""
        found = self.weight.detach()[:, :, 0, 0].max(1)
        pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
        return [int(source) if one > 0 else -1 for one, source in pairs]


def conv_stack(
    channels: int, widths: Sequence[int], *, pools: Sequence[int]
) -> "OrderedDict[str, nn.Module]":
    """Return 3x3 convolutions with padding, each followed by batch norm and ReLU.

    Args:
        channels: of the input.
        widths: output channels of each convolution, which are numbered from 1.
        pools: numbers of those that a 2x2 max-pool follows.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths, start=1):
        layers[f"conv{index}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers[f"bn{index}"] = nn.BatchNorm2d(width)
        layers[f"relu{index}"] = nn.ReLU()
        if index in pools:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        channels = width
    return layers
