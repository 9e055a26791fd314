"""Convolutions as one fused call each: convolution, bias and ReLU, or convolution, bias, add, ReLU.

On a CPU with oneDNN the weights are packed once for a shape and the calls are oneDNN's own; where
these are missing (CUDA, other builds) the same is done with plain PyTorch calls.

Dimensions: B images, C and D channels, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Call: TypeAlias = Callable[[Tensor], Tensor]
AddCall: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """What a fused call does to its result.

    Attributes:
        attr: oneDNN's name; "none" leaves the result.
        scalars: limits of a "hardtanh".
    """

    attr: str = "none"
    scalars: tuple[float, ...] = ()

    @property
    def nonnegative(self) -> bool:
        """Whether no result is below zero."""
        return self.attr == "relu" or (self.attr == "hardtanh" and self.scalars[0] >= 0)

    def apply_(self, features: Tensor) -> Tensor:
        """Return the features, changed in place."""
        if self.attr == "relu":
            return features.relu_()
        if self.attr == "hardtanh":
            return functional.hardtanh_(features, *self.scalars)
        return features


NOTHING = Activation()


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over the pixels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer at a real width.

    Attributes:
        weight: shape (D, C / groups, h, w) or (D, C).
        bias: shape (D,), if there is one.
        geometry: of a convolution that the fused calls know.
        groups: of a convolution at this width.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry | None
    groups: int


def fused_calls_exist() -> bool:
    """Whether this PyTorch has oneDNN's fused convolutions."""
    names = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    known: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return known and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack(layer: Layer, like: Tensor) -> Tensor:
    """Return the weights as oneDNN wants them for inputs of this shape and layout."""
    geometry, weight = layer.geometry, layer.weight
    assert geometry is not None
    if like.is_contiguous(memory_format=torch.channels_last):
        weight = weight.contiguous(memory_format=torch.channels_last)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight,
        list(geometry.padding),
        list(geometry.stride),
        list(geometry.dilation),
        layer.groups,
        list(like.shape),
    )
    return packed


def convolution(layer: Layer, activation: Activation, like: Tensor, *, fused: bool) -> Call:
    """Return a call of a convolution and what follows it.

    Args:
        layer: the weights at their real width.
        activation: applied to the result.
        like: an input; the weights are packed for its shape.
        fused: whether to use oneDNN's fused calls.
    """
    if not fused:
        return lambda features: activation.apply_(_plain(layer, features))
    call: Any = torch.ops.mkldnn._convolution_pointwise.default
    geometry, groups, bias = layer.geometry, layer.groups, layer.bias
    assert geometry is not None
    packed = pack(layer, like)
    padding, stride, dilation = (
        list(part) for part in (geometry.padding, geometry.stride, geometry.dilation)
    )
    attr, scalars = activation.attr, list(activation.scalars)

    def run(features: Tensor) -> Tensor:
        result: Tensor = call(
            features, packed, bias, padding, stride, dilation, groups, attr, scalars, ""
        )
        return result

    return run


def convolution_onto(layer: Layer, activation: Activation, like: Tensor, *, fused: bool) -> AddCall:
    """Return a call that adds a convolution's result to a tensor, in place, and activates it.

    The tensor has the convolution's width; it may be a view of the first channels of a wider one.
    """
    if not fused:
        return lambda features, onto: activation.apply_(onto.add_(_plain(layer, features)))
    call: Any = torch.ops.mkldnn._convolution_pointwise_.binary
    geometry, groups, bias = layer.geometry, layer.groups, layer.bias
    assert geometry is not None
    packed = pack(layer, like)
    padding, stride, dilation = (
        list(part) for part in (geometry.padding, geometry.stride, geometry.dilation)
    )
    attr = None if activation.attr == "none" else activation.attr
    scalars = list(activation.scalars)

    def run(features: Tensor, onto: Tensor) -> Tensor:
        call(
            *(onto, features, packed, bias, padding, stride, dilation, groups),
            *("add", 1.0, attr, scalars, ""),
        )
        return onto

    return run


def linear(layer: Layer) -> Call:
    """Return the call of a linear layer."""
    weight, bias = layer.weight, layer.bias
    return lambda features: functional.linear(features, weight, bias)


def _plain(layer: Layer, features: Tensor) -> Tensor:
    """Return the convolution alone, by PyTorch's own call."""
    geometry = layer.geometry
    assert geometry is not None
    return functional.conv2d(
        features,
        layer.weight,
        layer.bias,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        layer.groups,
    )


def pooled(features_BCHW: Tensor) -> Tensor:
    """Return ``mean_BC``, float32, over the pixels; a plain sum where channels lie last."""
    batch, channels, height, width = features_BCHW.shape
    pixels_BPC = features_BCHW.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    return pixels_BPC.sum(1, dtype=torch.float32) * (1 / (height * width))
