"""Convolutions by oneDNN's fused calls, or by PyTorch's plain one.

Dimensions: B images, C and D channels, H W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.executor.ir.operations import NOTHING, Activation, AddCall, Call, Layer


def fused_calls_exist() -> bool:
    """Whether this PyTorch has oneDNN's fused convolutions."""
    names = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    known: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return known and all(hasattr(torch.ops.mkldnn, name) for name in names)


def onednn_runs(dtype: torch.dtype) -> bool:
    """Whether oneDNN's calls know a type on this CPU: bfloat16 asks for AVX-512."""
    known: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or (dtype == torch.bfloat16 and known)


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


def by_onednn(layer: Layer, activation: Activation, like: Tensor) -> Call:
    """Return oneDNN's fused call."""
    call: Any = torch.ops.mkldnn._convolution_pointwise.default
    layer_arguments = _layer_arguments(layer, like)
    attr, scalars = activation.attr, list(activation.scalars)

    def run(features: Tensor) -> Tensor:
        result: Tensor = call(features, *layer_arguments, attr, scalars, "")
        return result

    return run


def by_onednn_onto(layer: Layer, activation: Activation, like: Tensor) -> AddCall:
    """Return oneDNN's fused call that adds."""
    call: Any = torch.ops.mkldnn._convolution_pointwise_.binary
    layer_arguments = _layer_arguments(layer, like)
    known = activation.attr == "relu"  # the only one that the call does after an add
    attr, after = ("relu", NOTHING) if known else (None, activation)

    def run(features: Tensor, onto: Tensor) -> Tensor:
        call(onto, features, *layer_arguments, "add", 1.0, attr, [], "")
        return after.apply_(onto)

    return run


def _layer_arguments(layer: Layer, like: Tensor) -> tuple[Any, ...]:
    """Return what oneDNN's calls are told of a layer: weights, bias, geometry, groups."""
    geometry = layer.geometry
    assert geometry is not None
    moves = (geometry.padding, geometry.stride, geometry.dilation)
    return (pack(layer, like), layer.bias, *map(list, moves), layer.groups)


def plain_convolution(layer: Layer, features: Tensor) -> Tensor:
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
