"""One native call of a command buffer, and the steps of a program.

Dimensions: C channels, H W pixels.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

State: TypeAlias = list[Any]  # a tensor per slot, or None; the last slot holds the masks
Step: TypeAlias = Callable[[State], None]


_INSTRUCTION = "9q"  # ``Instruction`` of the source


class Opcode(IntEnum):
    """What a call does: ``Opcode`` of the source, and what needs no call."""

    CONVOLVE = 0
    DEPTHWISE = 1
    LINEAR = 2
    MAX_POOL = 3
    COPY = 4
    CLEAR = 5
    AVERAGE = 6
    SCALE = 7
    SCALE_PLANES = 8
    DECIDE = 9
    MOVE = 10  # the target is the source by another name


class Instruction(NamedTuple):
    """A call of a command buffer.

    Attributes:
        kind: what it does.
        source: slot of what it reads.
        target: slot of what it writes.
        out: an image of what is made, (H, W, C) or (C,); None: it writes onto what is there.
        call: address of a ``Call`` of the source.
        widths: address of its ``LayerSlice`` rows.
        read: row of the widths by image that the source has; below zero: all have the first.
        write: likewise, of the target.
        writes: how many widths the target can have.
        site: that is decided.
        shared: whether it is one for all images of a batch: what it reads of itself is large.
        keepalive: what the addresses point to.
    """

    kind: Opcode
    source: int
    target: int
    out: tuple[int, ...] | None = None
    call: int = 0
    widths: int = 0
    read: int = -1
    write: int = -1
    writes: int = 1
    site: int = 0
    shared: bool = False
    keepalive: Any = None


def packed(instruction: Instruction, ends: tuple[int, int]) -> bytes:
    """Return an ``Instruction`` of the source."""
    return struct.pack(
        _INSTRUCTION,
        *(instruction.kind, instruction.call, instruction.widths, *ends),
        *(instruction.read, instruction.write, instruction.writes, instruction.site),
    )
