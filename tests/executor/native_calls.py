"""Compiled calls as tests make them: at widths of their own, alone or in a command buffer."""

import ctypes
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
)
from runtime_pruning.executor.commands.instruction import Instruction
from runtime_pruning.executor.ir.operations import Geometry, Layer
from runtime_pruning.executor.native import abi, library, memory, packing

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if library.functions(dtype)]


NEAR = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (2e-2, 2e-2)}


NO_LIMITS = (-math.inf, math.inf)


def near(found: Tensor, expected: Tensor) -> None:
    relative, absolute = NEAR[found.dtype]
    torch.testing.assert_close(found.float(), expected, rtol=relative, atol=absolute)


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return values that both types hold exactly enough: rounded to the type."""
    return torch.randn(shape).to(dtype)


def convolved(
    features_BCHW: Tensor,
    packed: packing.Packed,
    widths: list[tuple[int, int]],
    which_B: list[int],
    *,
    side: int,
    room: int,
    stride: int = 1,
    padding: int = 1,
    limits: tuple[float, float] = NO_LIMITS,
    onto: Tensor | None = None,
    threads: int = 1,
) -> Tensor:
    """Run images at widths of their own."""
    own: Any = library.functions(features_BCHW.dtype)
    kernel = (packed.weight.shape[1], packed.weight.shape[2])
    frame = abi.Frame.of(features_BCHW, kernel, (stride,) * 2, (padding,) * 2)
    assert frame.out == (side, side)
    call = frame.call(features_BCHW.shape[1], room, limits, add=onto is not None)
    rows = abi.slices(packed.row(*width) for width in widths)
    places_B = np.array(which_B, dtype=np.int32)
    batch = len(which_B)
    out = memory.empty(batch, room, frame.out, features_BCHW).fill_(7.0) if onto is None else onto
    macs_B = np.ones(batch, dtype=np.int64)
    own.convolve(
        *(ctypes.addressof(call), ctypes.addressof(rows), places_B.ctypes.data, None, 1),
        *(macs_B.ctypes.data, features_BCHW.data_ptr(), out.data_ptr(), batch, threads),
    )
    taps = side * side * kernel[0] * kernel[1]
    assert macs_B.tolist() == [1 + taps * math.prod(widths[place]) for place in which_B]
    return out


def played(
    instructions: list[Instruction], values: list[Tensor | None], places: list[np.ndarray[Any, Any]]
) -> list[Any]:
    """Return the values after some calls, images at widths of their own."""
    like, state = values[0], list[Any](values)
    assert like is not None
    tape = CommandBuffer(instructions, range(len(state)), like.dtype)
    places_KB = np.stack(places)
    tape(state, places_KB.ctypes.data)
    return state


def layer_of(outputs: int, inputs: int, dtype: torch.dtype) -> Layer:
    weight = drawn(outputs, inputs, 3, 3, dtype=dtype) / 10
    return Layer(weight, drawn(outputs, dtype=dtype), Geometry((1, 1), (1, 1), (1, 1)), 1)
