"""Convolutions as one fused call each: convolution, bias and ReLU, or convolution, bias, add, ReLU.

On a CPU there are oneDNN's calls, its weights packed once for a shape, and our own (`native`):
which is faster depends on width, pixels and batch, so that both are timed on the first input. Where
there is neither (CUDA, other builds) the same is done with plain PyTorch calls.

Dimensions: B images, C and D channels, H W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.executor.ir.operations import Activation, AddCall, Call, Layer
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
    CompiledLinear,
    compiled_runs,
)
from runtime_pruning.executor.kernels.onednn import (
    by_onednn,
    by_onednn_onto,
    onednn_runs,
    plain_convolution,
)
from runtime_pruning.executor.native import memory, packing
from runtime_pruning.timing.turns import AnyCall, fastest

IN_BUFFER = 8e-6  # seconds that a call of our own takes less in a command buffer with others


def convolution(layer: Layer, activation: Activation, like: Tensor, *, fused: bool) -> Call:
    """Return a call of a convolution and what follows it.

    Args:
        layer: the weights at their real width.
        activation: applied to the result.
        like: an input; the weights are packed for its shape, and calls timed on it.
        fused: whether to use fused calls.
    """
    calls: list[Call] = []
    if fused and onednn_runs(like.dtype):
        calls.append(by_onednn(layer, activation, like))
    if fused and compiled_runs(layer, like):
        calls.append(CompiledConvolution(layer, activation, like, None))
    if not calls:
        return lambda features: activation.apply_(plain_convolution(layer, features))
    return _chosen(calls, like)


def convolution_onto(
    layer: Layer, activation: Activation, like: Tensor, *, room: int, fused: bool
) -> AddCall:
    """Return a call that adds a convolution's result to a tensor, in place, and activates it.

    The tensor has the convolution's width; it may be a view of the first of ``room`` channels.
    """
    calls: list[AddCall] = []
    if fused and compiled_runs(layer, like):
        calls.append(CompiledConvolution(layer, activation, like, room))
    whole = layer.weight.shape[0] == room
    fit = not calls or whole or like.dtype == torch.float32
    if fused and onednn_runs(like.dtype) and fit:
        calls.append(by_onednn_onto(layer, activation, like))
    if not calls:
        return lambda features, onto: activation.apply_(
            onto.add_(plain_convolution(layer, features))
        )
    if len(calls) == 1:
        return calls[0]
    result = plain_convolution(layer, like)
    wide = memory.empty(like.shape[0], room, (result.shape[2], result.shape[3]), like).zero_()
    return _chosen(calls, like, wide.narrow(1, 0, layer.weight.shape[0]))


def linear(layer: Layer, packed: packing.Packed | None, like: Tensor) -> Call:
    """Return the call of a linear layer.

    Args:
        layer: the weights.
        packed: of the same layer, or of one that it is the first inputs and outputs of; None where
            our own calls cannot run or are not to be used.
        like: an input; calls are timed on it.
    """
    weight, bias = layer.weight, layer.bias
    calls: list[Call] = [lambda features: functional.linear(features, weight, bias)]
    if packed is not None:
        calls.append(CompiledLinear(layer, packed, like))
    return _chosen(calls, like)


def _chosen(calls: Sequence[AnyCall], *inputs: object) -> AnyCall:
    """Return the fastest call of a layer; native ones are about to run in a command buffer."""
    head_start = [
        IN_BUFFER * isinstance(call, CompiledConvolution | CompiledLinear) for call in calls
    ]
    return fastest(calls, *inputs, head_start=head_start)
