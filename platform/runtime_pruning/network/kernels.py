"""Convolutions as one fused call each: convolution, bias and ReLU, or convolution, bias, add, ReLU.

On a CPU there are oneDNN's calls, its weights packed once for a shape, and our own (`native`):
which is faster depends on width, pixels and batch, so that both are timed on the first input. Where
there is neither (CUDA, other builds) the same is done with plain PyTorch calls.

Dimensions: B images, C and D channels, H W pixels.
"""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.network import native
from runtime_pruning.network.tape import Kind, Record

Call: TypeAlias = Callable[[Tensor], Tensor]
AddCall: TypeAlias = Callable[[Tensor, Tensor], Tensor]

TURNS = (3, 12)  # timed turns of each kind of call, at least and at most
ENOUGH = 0.01  # seconds; no more turns after these than at least
SHARED = 256 * 1024  # bytes of a linear layer's weights that are read once for a whole batch
ON_TAPE = 8e-6  # seconds that a call of our own takes less where it is played with others


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
    def limits(self) -> tuple[float, float]:
        """The least and the greatest result."""
        if self.attr == "relu":
            return 0.0, native.INFINITY
        return (
            (self.scalars[0], self.scalars[1])
            if self.scalars
            else (-native.INFINITY, native.INFINITY)
        )

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


def own_calls(like: Tensor) -> native.Functions | None:
    """Return our own calls for values like this one, where there are any."""
    return native.functions(like.dtype) if like.device.type == "cpu" else None


def ours_fit(geometry: Geometry | None, weight: Tensor, groups: int) -> bool:
    """Whether our own calls know such a convolution: a plain one, or one kernel per channel."""
    plain = groups == 1 or groups == weight.shape[0]
    return geometry is not None and plain and set(geometry.dilation) == {1}


def ours_run(layer: Layer, like: Tensor) -> bool:
    """Whether our own calls can run a layer on inputs like this one."""
    fits = ours_fit(layer.geometry, layer.weight, layer.groups)
    last = like.is_contiguous(memory_format=torch.channels_last)
    return fits and last and own_calls(like) is not None


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
        calls.append(_by_onednn(layer, activation, like))
    if fused and ours_run(layer, like):
        calls.append(Ours(layer, activation, like, None))
    if not calls:
        return lambda features: activation.apply_(_plain(layer, features))
    return _chosen(calls, like)


def convolution_onto(
    layer: Layer, activation: Activation, like: Tensor, *, room: int, fused: bool
) -> AddCall:
    """Return a call that adds a convolution's result to a tensor, in place, and activates it.

    The tensor has the convolution's width; it may be a view of the first of ``room`` channels.
    """
    calls: list[AddCall] = []
    if fused and ours_run(layer, like):
        calls.append(Ours(layer, activation, like, room))
    whole = layer.weight.shape[0] == room
    fit = not calls or whole or like.dtype == torch.float32
    if fused and onednn_runs(like.dtype) and fit:
        calls.append(_by_onednn_onto(layer, activation, like))
    if not calls:
        return lambda features, onto: activation.apply_(onto.add_(_plain(layer, features)))
    if len(calls) == 1:
        return calls[0]
    result = _plain(layer, like)
    wide = native.empty(like.shape[0], room, (result.shape[2], result.shape[3]), like).zero_()
    return _chosen(calls, like, wide.narrow(1, 0, layer.weight.shape[0]))


def linear(layer: Layer, packed: native.Packed | None, like: Tensor) -> Call:
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
        calls.append(OursLinear(layer, packed, like))
    return _chosen(calls, like)


def linear_runs(like: Tensor) -> bool:
    """Whether our own calls can run a linear layer on inputs like this one."""
    return (
        own_calls(like) is not None
        and like.ndim == 2
        and like.shape[1] * like.element_size() % 4 == 0
    )


def pooled(features_BCHW: Tensor, most: int, channels_B: native.Numbers | None = None) -> Tensor:
    """Return ``mean_BF``, float32, over the pixels; absent channels are 0.

    Args:
        features_BCHW: of at most F channels.
        most: length F.
        channels_B: that each image has, int64; None: all that are there.
    """
    batch, channels, height, width = features_BCHW.shape
    own = own_calls(features_BCHW)
    if own is not None:
        return native.pool(own, native.channels_last(features_BCHW), channels_B, most)
    pixels_BPC = features_BCHW.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    mean_BC = pixels_BPC.sum(1, dtype=torch.float32) * (1 / (height * width))
    return functional.pad(mean_BC, (0, most - channels)) if most > channels else mean_BC


# Kinds of calls


class Ours:
    """A convolution by our own calls, at one width.

    Args:
        layer: the weights.
        activation: applied to the result.
        like: an input.
        room: channels of what the result is added to; None: it is not added.
    """

    def __init__(
        self, layer: Layer, activation: Activation, like: Tensor, room: int | None
    ) -> None:
        geometry, weight = layer.geometry, layer.weight
        assert geometry is not None
        own = native.functions(like.dtype)
        assert own is not None
        alone = layer.groups > 1
        packed = (native.PackedDepthwise if alone else native.Packed)(weight, layer.bias)
        outputs, inputs = weight.shape[0], weight.shape[1] * layer.groups
        frame = native.Frame.of(like, weight.shape[2:], geometry.stride, geometry.padding)
        call = frame.call(inputs, room or outputs, activation.limits, add=room is not None)
        row = np.array(packed.row(inputs, outputs), dtype=np.int64)
        self._held = (packed, call, row)  # what the addresses below point to
        self._convolve = own.depthwise if alone else own.convolve
        self._kind = Kind.DEPTHWISE if alone else Kind.CONVOLVE
        self._call, self._row = ctypes.addressof(call), row.ctypes.data
        self._out = (*frame.out, outputs)
        self._adds = room is not None

    def __call__(self, features: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return the result, added to a tensor if one is given."""
        features = features.contiguous(memory_format=torch.channels_last)
        batch = features.shape[0]
        if onto is None:
            high, wide, outputs = self._out
            onto = native.empty(batch, outputs, (high, wide), features)
        self._convolve(
            *(self._call, self._row, *native.ALIKE, features.data_ptr(), onto.data_ptr()),
            *(batch, torch.get_num_threads()),
        )
        return onto

    def record(self, source: int, target: int) -> Record:
        """Return the call for a tape, between two slots."""
        out = None if self._adds else self._out
        return Record(self._kind, source, target, out, self._call, self._row, held=self._held)


class OursLinear:
    """A linear layer by our own call.

    Args:
        layer: gives the inputs and outputs.
        packed: see `linear`.
        like: an input.
    """

    def __init__(self, layer: Layer, packed: native.Packed, like: Tensor) -> None:
        own = native.functions(like.dtype)
        assert own is not None
        self._outputs, inputs = layer.weight.shape
        call = native.ALONE.call(inputs, self._outputs, NOTHING.limits, add=False)
        row = np.array(packed.row(inputs, self._outputs), dtype=np.int64)
        self._held = (packed, call, row)  # what the addresses below point to
        self._linear = own.linear
        self._call, self._row = ctypes.addressof(call), row.ctypes.data

    def __call__(self, features: Tensor) -> Tensor:
        """Return the result."""
        features = features.contiguous()
        out = features.new_empty(features.shape[0], self._outputs)
        self._linear(
            *(self._call, self._row, None, features.data_ptr(), out.data_ptr()),
            *(features.shape[0], torch.get_num_threads()),
        )
        return out

    def record(self, source: int, target: int) -> Record:
        """Return the call for a tape, between two slots."""
        out = (self._outputs,)
        packed: native.Packed = self._held[0]
        addresses, shared = (self._call, self._row), packed.weight.nbytes > SHARED
        return Record(Kind.LINEAR, source, target, out, *addresses, shared=shared, held=self._held)


def fastest(
    calls: Sequence[Callable[..., object]],
    *inputs: object,
    wait: Callable[[], object] | None = None,
    head_start: Sequence[float] = (),
) -> Any:
    """Return the call that takes the least time on these inputs, of a few turns each.

    Args:
        calls: that do the same.
        inputs: of each call.
        wait: returns when the device is done; None where a call returns no sooner.
        head_start: seconds that are taken off each call's time; none by default.
    """
    if len(calls) == 1:
        return calls[0]
    best = best_seconds(calls, *inputs, wait=wait)
    if head_start:
        best = [seconds - off for seconds, off in zip(best, head_start, strict=True)]
    return calls[best.index(min(best))]


def _chosen(calls: Sequence[Callable[..., object]], *inputs: object) -> Any:
    """Return the fastest call of a layer; our own are about to be played on a tape."""
    head_start = [ON_TAPE * isinstance(call, Ours | OursLinear) for call in calls]
    return fastest(calls, *inputs, head_start=head_start)


def best_seconds(
    calls: Sequence[Callable[..., object]],
    *inputs: object,
    wait: Callable[[], object] | None = None,
) -> list[float]:
    """Return the least time that each call took, of a few turns; see `fastest`."""
    best = [native.INFINITY] * len(calls)
    begun = time.perf_counter()
    for turn in range(TURNS[1] + 1):  # the first warms up
        if turn > TURNS[0] and time.perf_counter() - begun > ENOUGH * len(calls):
            break
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call(*inputs)
            if wait is not None:
                wait()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def _by_onednn(layer: Layer, activation: Activation, like: Tensor) -> Call:
    """Return oneDNN's fused call."""
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


def _by_onednn_onto(layer: Layer, activation: Activation, like: Tensor) -> AddCall:
    """Return oneDNN's fused call that adds."""
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
