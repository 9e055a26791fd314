"""One native call of a command buffer, and the steps of a program.

Dimensions: C channels, H W pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from runtime_pruning.executor.native import abi
from runtime_pruning.executor.native.abi import Opcode as Opcode

State: TypeAlias = list[Any]  # a tensor per slot, or None; the last slot holds the masks
Step: TypeAlias = Callable[[State], None]


class Instruction(NamedTuple):
    """A call of a command buffer.

    Attributes:
        kind: what it does.
        source: slot of what it reads.
        target: slot of what it writes.
        out: an image of what is made, (H, W, C) or (C,); None: it writes onto what is there.
        call: address of an `abi.Call`.
        widths: address of a table of `abi.LayerSlice`.
        read: row of the widths by image that the source has; below zero: all have the first.
        write: likewise, of the target.
        writes: how many widths the target can have.
        site: that is decided.
        shared: whether it is one for all images of a batch: what it reads of itself is large.
        keepalive: what the addresses point to.
        subset: address of an `abi.Subset`.
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
    subset: int = 0


def packed(instruction: Instruction, ends: tuple[int, int]) -> abi.Instruction:
    """Return an instruction as the library has it, between two of its values."""
    return abi.Instruction(
        *(instruction.kind, instruction.call, instruction.widths, *ends),
        *(instruction.read, instruction.write, instruction.writes, instruction.site),
        instruction.subset,
    )
