"""Calls of our own that follow each other, as one: nothing between them goes through Python.

A call from Python costs 10 to 20 microseconds with what belongs to it: a quarter of what a layer
of ResNet-20 takes for one image. A command buffer has the calls of several layers in a table that
``run`` of the source reads; what nobody else reads lies in memory whose places are found once.

Dimensions: B images, C channels, H W pixels.
"""

import ctypes
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.executor.commands.instruction import Instruction, Opcode, State, packed
from runtime_pruning.executor.commands.memory_plan import ALIGNED, BufferValue, lay_out
from runtime_pruning.executor.native import abi, library, memory

T = TypeVar("T")


TOGETHER = 8  # images that a thread takes through the calls at once: as many are decided together
CACHED = 4 * 1024 * 1024  # bytes of what they make; fewer images at once, where it is more


class CommandBuffer:
    """Runs calls.

    Args:
        instructions: in order.
        kept: slots that are read after them.
        dtype: of all values.

    Attributes:
        steps: the instructions that are calls.
        splits_batch: whether a thread takes a few images at a time through all of them.
    """

    def __init__(
        self, instructions: Sequence[Instruction], kept: Collection[int], dtype: torch.dtype
    ) -> None:
        own = library.functions(dtype)
        assert own is not None
        self._run, self._dtype = own.run, dtype
        self.steps: list[Instruction] = []
        self._values: list[BufferValue] = []
        self._of: dict[int, int] = {}  # the value of a slot
        self._ends: list[tuple[int, int]] = []  # of each step: the values that it reads and writes
        for instruction in instructions:
            self._add(instruction)
        written = {instruction.target for instruction in instructions}
        self._written = [(slot, i) for slot, i in self._of.items() if slot in written & {*kept}]
        for _, i in self._written:
            self._values[i].kept = True
        numbered = list(enumerate(self._values))
        self._given = [(i, v.slot, len(v.shape)) for i, v in numbered if v.slot is not None]
        self._made = [(i, v.shape) for i, v in numbered if v.slot is None and v.kept]
        inner = [value for value in self._values if value.slot is None and not value.kept]
        self._elements = lay_out(inner, ALIGNED // dtype.itemsize)
        self._places = np.array([value.place for value in self._values], dtype=np.int64)
        layout = abi.BufferLayout(self._elements, self._places.ctypes.data)
        table = (abi.Instruction * len(self.steps))(*map(packed, self.steps, self._ends))
        self._keepalive = (table, layout)  # what the addresses point to
        self._address, self._layout = map(ctypes.addressof, self._keepalive)
        self.splits_batch = not any(instruction.shared for instruction in self.steps)
        image = max(1, self._elements * dtype.itemsize)
        self._together = max(1, min(TOGETHER, CACHED // image))

    def _add(self, instruction: Instruction) -> None:
        """Take an instruction: find the values at its ends."""
        step = len(self.steps)
        source = self._known(instruction.source, instruction, step)
        if instruction.kind == Opcode.MOVE:
            self._of[instruction.target] = source
            return
        if instruction.out is None:
            target = self._known(instruction.target, instruction, step)
        else:
            target = self._of[instruction.target] = len(self._values)
            self._values.append(BufferValue(None, instruction.out, step, step))
        self.steps.append(instruction)
        self._ends.append((source, target))

    def _known(self, slot: int, instruction: Instruction, step: int) -> int:
        """Return the value of a slot that exists when a step begins."""
        if slot not in self._of:
            self._of[slot] = len(self._values)
            flat = len(instruction.out or ()) == 1 and instruction.kind != Opcode.AVERAGE
            flat = flat or instruction.kind == Opcode.SCALE_PLANES  # in the order that it has
            self._values.append(BufferValue(slot, (0,) if flat else (0, 0, 0), step, step))
        found = self._of[slot]
        self._values[found].last = step
        return found

    def __call__(
        self,
        state: State,
        places: int | None = None,
        macs: int | None = None,
        deciding: int | None = None,
    ) -> None:
        """Run all; each image at the first of the widths, if no others are given.

        Args:
            state: has what is read, and gets what is read after the calls.
            places: address of the widths by image, row by row, int32; see `Instruction.read`.
            macs: address of where MACs are counted, by image.
            deciding: address of an `abi.DecisionState`, where calls decide.

        Raises:
            MemoryError: there is none for what lies between the calls.
        """
        addresses = (ctypes.c_void_p * len(self._places))()
        tensors: dict[int, Tensor] = {}
        for i, slot, axes in self._given:
            found: Tensor = state[slot]
            found = found.contiguous() if axes == 1 else memory.channels_last(found)
            tensors[i], addresses[i] = found, found.data_ptr()
        size = found.shape[0]
        for i, shape in self._made:
            made = torch.empty((size, *shape), dtype=self._dtype)
            addresses[i] = made.data_ptr()
            tensors[i] = made if len(shape) == 1 else made.permute(0, 3, 1, 2)
        threads = torch.get_num_threads()
        apart = self.splits_batch and size >= threads
        most = min(self._together, -(-size // threads)) if apart else 0
        if self._run(
            *(self._address, len(self.steps), self._layout, addresses, places, macs, deciding),
            *(size, most, threads),
        ):
            raise MemoryError(f"There is no memory for {size} images between layers.")
        for slot, i in self._written:
            state[slot] = tensors[i]


# Steps of a state


@dataclass(frozen=True)
class NativeStep:
    """A step that is calls of our own, and may be run with those beside it.

    Attributes:
        instructions: the calls.
        dtype: of all values.
    """

    instructions: tuple[Instruction, ...]
    dtype: torch.dtype

    def __call__(self, state: State) -> None:
        """Run them alone."""
        CommandBuffer(
            self.instructions, {instruction.target for instruction in self.instructions}, self.dtype
        )(state)


@dataclass(frozen=True)
class FreeSlots:
    """A step that drops values that nobody reads any more.

    Attributes:
        slots: theirs.
    """

    slots: tuple[int, ...]

    def __call__(self, state: State) -> None:
        """Drop them."""
        for slot in self.slots:
            state[slot] = None


def splits_batch(steps: Sequence[object]) -> bool:
    """Whether steps are command buffers that split a batch, so that nobody else need do that."""
    return all(
        step.splits_batch if isinstance(step, CommandBuffer) else isinstance(step, FreeSlots)
        for step in steps
    )


def coalesce(
    steps: Sequence[T | NativeStep | FreeSlots],
) -> "tuple[T | CommandBuffer | FreeSlots, ...]":
    """Return steps that do the same, those that can be run together in one command buffer each."""
    found: list[T | CommandBuffer | FreeSlots] = []
    instructions: list[Instruction] = []
    dropped: list[int] = []
    dtype = torch.float32

    def end() -> None:
        if instructions:
            written = {instruction.target for instruction in instructions}
            found.append(CommandBuffer(instructions, written - {*dropped}, dtype))
            dropped[:] = [slot for slot in dropped if slot not in written]
            instructions.clear()
        if dropped:
            found.append(FreeSlots(tuple(dropped)))
            dropped.clear()

    for step in steps:
        if isinstance(step, NativeStep):
            if instructions and step.dtype != dtype:
                end()
            instructions += step.instructions
            dtype = step.dtype
        elif isinstance(step, FreeSlots):
            dropped += step.slots
        else:
            end()
            found.append(step)
    end()
    return tuple(found)
