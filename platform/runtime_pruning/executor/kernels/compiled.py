"""Convolutions, linear layers and pooling by the compiled library.

Dimensions: B images, C and D channels, H W pixels, F features.
"""

import ctypes

import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.operations import NOTHING, Activation, Geometry, Layer
from runtime_pruning.executor.native import abi, library, memory, packing

SHARED = 256 * 1024  # bytes of a linear layer's weights that are read once for a whole batch


def compiled_functions(like: Tensor) -> library.Functions | None:
    """Return our own calls for values like this one, where there are any."""
    return library.functions(like.dtype) if like.device.type == "cpu" else None


def compiled_fits(geometry: Geometry | None, weight: Tensor, groups: int) -> bool:
    """Whether our own calls know such a convolution: a plain one, or one kernel per channel."""
    plain = groups == 1 or groups == weight.shape[0]
    return geometry is not None and plain and set(geometry.dilation) == {1}


def compiled_runs(layer: Layer, like: Tensor) -> bool:
    """Whether our own calls can run a layer on inputs like this one."""
    fits = compiled_fits(layer.geometry, layer.weight, layer.groups)
    last = like.is_contiguous(memory_format=torch.channels_last)
    return fits and last and compiled_functions(like) is not None


def compiled_linear_runs(like: Tensor) -> bool:
    """Whether our own calls can run a linear layer on inputs like this one."""
    return (
        compiled_functions(like) is not None
        and like.ndim == 2
        and like.shape[1] * like.element_size() % 4 == 0
    )


def pooled(features_BCHW: Tensor, most: int, channels_B: abi.Numbers | None = None) -> Tensor:
    """Return ``mean_BF``, float32, over the pixels; absent channels are 0.

    Args:
        features_BCHW: of at most F channels.
        most: length F.
        channels_B: that each image has, int64; None: all that are there.
    """
    batch, channels, height, width = features_BCHW.shape
    own = compiled_functions(features_BCHW)
    if own is not None:
        return library.pool(own, memory.channels_last(features_BCHW), channels_B, most)
    pixels_BPC = features_BCHW.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    mean_BC = pixels_BPC.sum(1, dtype=torch.float32) * (1 / (height * width))
    return functional.pad(mean_BC, (0, most - channels)) if most > channels else mean_BC


# Kinds of calls


class CompiledConvolution:
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
        own = library.functions(like.dtype)
        assert own is not None
        alone = layer.groups > 1
        packed = (packing.PackedDepthwise if alone else packing.Packed)(weight, layer.bias)
        outputs, inputs = weight.shape[0], weight.shape[1] * layer.groups
        frame = abi.Frame.of(like, weight.shape[2:], geometry.stride, geometry.padding)
        call = frame.call(inputs, room or outputs, activation.limits, add=room is not None)
        row = packed.row(inputs, outputs)
        self._keepalive = (packed, call, row)  # what the addresses below point to
        self._convolve = own.depthwise if alone else own.convolve
        self._kind = Opcode.DEPTHWISE if alone else Opcode.CONVOLVE
        self._call, self._row = ctypes.addressof(call), ctypes.addressof(row)
        self._out = (*frame.out, outputs)
        self._adds = room is not None

    def __call__(self, features: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return the result, added to a tensor if one is given."""
        features = features.contiguous(memory_format=torch.channels_last)
        batch = features.shape[0]
        if onto is None:
            high, wide, outputs = self._out
            onto = memory.empty(batch, outputs, (high, wide), features)
        self._convolve(
            *(self._call, self._row, *abi.ALIKE, features.data_ptr(), onto.data_ptr()),
            *(batch, torch.get_num_threads()),
        )
        return onto

    def instruction(self, source: int, target: int) -> Instruction:
        """Return the instruction, between two slots."""
        out = None if self._adds else self._out
        return Instruction(
            self._kind, source, target, out, self._call, self._row, keepalive=self._keepalive
        )


class CompiledLinear:
    """A linear layer by our own call.

    Args:
        layer: gives the inputs and outputs.
        packed: see `linear`.
        like: an input.
    """

    def __init__(self, layer: Layer, packed: packing.Packed, like: Tensor) -> None:
        own = library.functions(like.dtype)
        assert own is not None
        self._outputs, inputs = layer.weight.shape
        call = abi.ALONE.call(inputs, self._outputs, NOTHING.limits, add=False)
        row = packed.row(inputs, self._outputs)
        self._keepalive = (packed, call, row)  # what the addresses below point to
        self._linear = own.linear
        self._call, self._row = ctypes.addressof(call), ctypes.addressof(row)

    def __call__(self, features: Tensor) -> Tensor:
        """Return the result."""
        features = features.contiguous()
        out = features.new_empty(features.shape[0], self._outputs)
        self._linear(
            *(self._call, self._row, None, features.data_ptr(), out.data_ptr()),
            *(features.shape[0], torch.get_num_threads()),
        )
        return out

    def instruction(self, source: int, target: int) -> Instruction:
        """Return the instruction, between two slots."""
        out = (self._outputs,)
        packed: packing.Packed = self._keepalive[0]
        addresses, shared = (self._call, self._row), packed.weight.nbytes > SHARED
        return Instruction(
            Opcode.LINEAR, source, target, out, *addresses, shared=shared, keepalive=self._keepalive
        )
