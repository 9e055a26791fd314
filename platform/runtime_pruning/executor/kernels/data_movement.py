"""What is done to features between layers, by calls of our own: pooled, copied, padded, scaled.

Dimensions: B images, C channels, H W pixels.
"""

import ctypes
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.operations import NOTHING
from runtime_pruning.executor.ir.patterns import Scaling, subsampling_stride, zeros_around
from runtime_pruning.executor.native import abi
from runtime_pruning.network.graph import FxCall, Ref

Size: TypeAlias = tuple[int, ...]  # (H, W, C)


_LONGEST = 16  # floats in a register


def scaling_instruction(
    scaling: Scaling, like: Tensor, source: int, target: int
) -> Instruction | None:
    """Return the native call that scales images, from float32 to its type; None if it cannot.

    Images are read in the order that these have: channels last, or plane by plane.

    Args:
        scaling: its constants.
        like: what it reads, (B, C, H, W).
        source: slot.
        target: likewise.
    """
    channels, high, wide = like.shape[1:]
    if not scaling.fits(channels) or not like.is_cpu or like.dtype != torch.float32:
        return None
    # Where pixels lie side by side: constants for as many as fill whole registers.
    last = like.is_contiguous(memory_format=torch.channels_last)
    opcode, period = (Opcode.SCALE, _LONGEST) if last else (Opcode.SCALE_PLANES, 1)
    mean, std = (part.flatten().repeat(period) for part in (scaling.mean, scaling.std))
    rows = width_rows([(channels * period, 0)])
    rows[0].weight, rows[0].bias = std.data_ptr(), mean.data_ptr()
    frame = abi.Frame.over((high, wide))
    instruction = movement(opcode, (source, target), frame, (channels, channels), rows)
    return instruction._replace(keepalive=(instruction.keepalive, mean, std))


def copied(size: Size, room: int, source: int, target: int) -> Instruction:
    """Return an instruction that copies features to a place of as many channels or more.

    Channels behind them are set to zero.

    Args:
        size: of the source.
        room: channels of the target.
        source: slot.
        target: likewise.
    """
    return padded(size, (0, room - size[2]), source, target)


def padded(size: Size, pad: tuple[int, int], source: int, target: int) -> Instruction:
    """Return an instruction that copies features and puts channels of zeros around them.

    Args:
        size: of the source.
        pad: channels before and after its own.
        source: slot.
        target: likewise.
    """
    high, wide, channels = size
    frame, rows = abi.Frame.over((high, wide)), width_rows([(channels, pad[0])])
    return movement(Opcode.COPY, (source, target), frame, (channels, channels + sum(pad)), rows)


def subsampled(size: Size, stride: tuple[int, int], source: int, target: int) -> Instruction:
    """Return an instruction that takes every n-th row and column, from the first on."""
    high, wide, channels = size
    frame = abi.Frame.over((high, wide), stride=stride)
    return movement(
        Opcode.COPY, (source, target), frame, (channels, channels), width_rows([(channels, 0)])
    )


def cleared(size: Size, slot: int, rows: Sequence[tuple[int, int]], **widths: int) -> Instruction:
    """Return an instruction that sets some channels of each image to zero, in place.

    Args:
        size: of the features.
        slot: that holds them.
        rows: from which channel to which, by width.
        widths: see `Record`.
    """
    high, wide, channels = size
    frame, room = abi.Frame.over((high, wide)), (channels, channels)
    instruction = movement(Opcode.CLEAR, (slot, slot), frame, room, width_rows(rows), **widths)
    return instruction._replace(out=None)


def decided(size: Size, slot: int, site: int, channels: Sequence[int], read: int) -> Instruction:
    """Return an instruction that decides a site.

    Args:
        size: of the features that the site reads.
        slot: that holds them.
        site: index.
        channels: that they can have.
        read: see `Record`.
    """
    high, wide, room = size
    frame, rows = abi.Frame.over((high, wide)), width_rows((0, count) for count in channels)
    instruction = movement(
        Opcode.DECIDE, (slot, slot), frame, (room, room), rows, read=read, site=site
    )
    return instruction._replace(out=None)


def of_step(step: FxCall, like: Tensor, source: int, target: int) -> Instruction | None:
    """Return an operation of which only its torch.fx step is known as an instruction, or None.

    Args:
        step: the operation.
        like: what it reads, (B, C, H, W), of a type that our own calls know.
        source: slot.
        target: likewise.
    """
    if step.op != "function" or not step.args:
        return None
    first, *args = step.args
    if not isinstance(first, Ref):
        return None
    channels, high, wide = like.shape[1:]
    size = (high, wide, channels)
    if step.target is operator.getitem and len(args) == 1:
        stride = subsampling_stride(args[0])
        return None if stride is None else subsampled(size, stride, source, target)
    around = zeros_around(step)
    if len(around) == 6 and not any(around[:4]) and min(around) >= 0:
        return padded(size, (around[4], around[5]), source, target)
    return None


def width_rows(widths: Iterable[tuple[int, int]]) -> ctypes.Array[abi.LayerSlice]:
    """Return slices of a layer with no weights."""
    return abi.slices(abi.LayerSlice(None, None, *row, 0, 0) for row in widths)


def movement(
    kind: Opcode,
    slots: tuple[int, int],
    frame: abi.Frame,
    room: tuple[int, int],
    rows: ctypes.Array[abi.LayerSlice],
    **widths: Any,
) -> Instruction:
    """Return a call from one slot to another, from and to pixels with room for some channels."""
    call = frame.call(*room, NOTHING.limits, add=False)
    addresses = ctypes.addressof(call), ctypes.addressof(rows)
    return Instruction(
        kind, *slots, (*frame.out, room[1]), *addresses, **widths, keepalive=(call, rows)
    )
