"""Calls of our own that follow each other, as one: nothing between them goes through Python.

A call from Python costs 10 to 20 microseconds with what belongs to it: a quarter of what a layer
of ResNet-20 takes for one image. A tape has the calls of several layers in a table that ``play`` of
the source reads; what nobody else reads lies in memory whose places are found once.

Dimensions: B images, C channels, H W pixels.
"""

import ctypes
import math
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.network import native

State: TypeAlias = list[Any]  # a tensor per slot, or None; the last slot holds the masks
Step: TypeAlias = Callable[[State], None]
T = TypeVar("T")

ALIGNED = 64  # bytes
TOGETHER = 8  # images that a thread takes through a tape at once: as many are decided together
CACHED = 4 * 1024 * 1024  # bytes of what they make; fewer images at once, where it is more
_STEP = "9q"  # ``Step`` of the source


class Kind(IntEnum):
    """What a call does: ``Kind`` of the source, and what needs no call."""

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


class Record(NamedTuple):
    """A call of a tape.

    Attributes:
        kind: what it does.
        source: slot of what it reads.
        target: slot of what it writes.
        out: an image of what is made, (H, W, C) or (C,); None: it writes onto what is there.
        call: address of a ``Call`` of the source.
        widths: address of its ``Width`` rows.
        read: row of the widths by image that the source has; below zero: all have the first.
        write: likewise, of the target.
        writes: how many widths the target can have.
        site: that is decided.
        shared: whether it is one for all images of a batch: what it reads of itself is large.
        held: what the addresses point to.
    """

    kind: Kind
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
    held: Any = None


@dataclass
class _Value:
    """What a tape's calls read or write.

    Attributes:
        slot: where it comes from; None: the tape makes it.
        shape: of an image; of what comes from a slot, its length alone counts.
        first: the first step that touches it.
        last: the last step that touches it.
        kept: whether it is read after the tape.
        place: of an image, in elements, in the tape's memory.
    """

    slot: int | None
    shape: tuple[int, ...]
    first: int
    last: int
    kept: bool = False
    place: int = 0


class Tape:
    """Plays calls.

    Args:
        records: in order.
        kept: slots that are read after them.
        dtype: of all values.

    Attributes:
        steps: the records that are calls.
        apart: whether a thread takes a few images at a time through all of them.
    """

    def __init__(
        self, records: Sequence[Record], kept: Collection[int], dtype: torch.dtype
    ) -> None:
        own = native.functions(dtype)
        assert own is not None
        self._play, self._dtype = own.play, dtype
        self.steps: list[Record] = []
        self._values: list[_Value] = []
        self._of: dict[int, int] = {}  # the value of a slot
        self._ends: list[tuple[int, int]] = []  # of each step: the values that it reads and writes
        for record in records:
            self._add(record)
        written = {record.target for record in records}
        self._written = [(slot, i) for slot, i in self._of.items() if slot in written & {*kept}]
        for _, i in self._written:
            self._values[i].kept = True
        numbered = list(enumerate(self._values))
        self._given = [(i, v.slot, len(v.shape)) for i, v in numbered if v.slot is not None]
        self._made = [(i, v.shape) for i, v in numbered if v.slot is None and v.kept]
        inner = [value for value in self._values if value.slot is None and not value.kept]
        self._elements = _lay_out(inner, ALIGNED // dtype.itemsize)
        self._places = np.array([value.place for value in self._values], dtype=np.int64)
        layout = struct.pack("2q", self._elements, self._places.ctypes.data)
        table = b"".join(map(_packed, self.steps, self._ends))
        self._tables = [ctypes.create_string_buffer(own, len(own)) for own in (table, layout)]
        self._address, self._layout = map(ctypes.addressof, self._tables)
        self.apart = not any(record.shared for record in self.steps)
        image = max(1, self._elements * dtype.itemsize)
        self._together = max(1, min(TOGETHER, CACHED // image))

    def _add(self, record: Record) -> None:
        """Take a record: find the values at its ends."""
        step = len(self.steps)
        source = self._known(record.source, record, step)
        if record.kind == Kind.MOVE:
            self._of[record.target] = source
            return
        if record.out is None:
            target = self._known(record.target, record, step)
        else:
            target = self._of[record.target] = len(self._values)
            self._values.append(_Value(None, record.out, step, step))
        self.steps.append(record)
        self._ends.append((source, target))

    def _known(self, slot: int, record: Record, step: int) -> int:
        """Return the value of a slot that exists when a step begins."""
        if slot not in self._of:
            self._of[slot] = len(self._values)
            flat = len(record.out or ()) == 1 and record.kind != Kind.AVERAGE
            flat = flat or record.kind == Kind.SCALE_PLANES  # in the order that it has
            self._values.append(_Value(slot, (0,) if flat else (0, 0, 0), step, step))
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
        """Play all; each image at the first of the widths, if no others are told.

        Args:
            state: has what is read, and gets what is read after the tape.
            places: address of the widths by image, row by row, int32; see `Record.read`.
            macs: address of where MACs are counted, by image.
            deciding: address of a ``Deciding`` of the source, where decisions are on the tape.

        Raises:
            MemoryError: there is none for what lies between the calls.
        """
        addresses = (ctypes.c_void_p * len(self._places))()
        tensors: dict[int, Tensor] = {}
        for i, slot, axes in self._given:
            found: Tensor = state[slot]
            found = found.contiguous() if axes == 1 else native.channels_last(found)
            tensors[i], addresses[i] = found, found.data_ptr()
        size = found.shape[0]
        for i, shape in self._made:
            made = torch.empty((size, *shape), dtype=self._dtype)
            addresses[i] = made.data_ptr()
            tensors[i] = made if len(shape) == 1 else made.permute(0, 3, 1, 2)
        threads = torch.get_num_threads()
        apart = self.apart and size >= threads
        most = min(self._together, -(-size // threads)) if apart else 0
        if self._play(
            *(self._address, len(self.steps), self._layout, addresses, places, macs, deciding),
            *(size, most, threads),
        ):
            raise MemoryError(f"There is no memory for {size} images between layers.")
        for slot, i in self._written:
            state[slot] = tensors[i]


def _packed(record: Record, ends: tuple[int, int]) -> bytes:
    """Return a ``Step`` of the source."""
    return struct.pack(
        _STEP,
        *(record.kind, record.call, record.widths, *ends),
        *(record.read, record.write, record.writes, record.site),
    )


def _lay_out(values: Sequence[_Value], aligned: int) -> int:
    """Give each value a place that no other has while it is needed; return the elements of all.

    Args:
        values: by their first step.
        aligned: places are multiples of so many elements.
    """
    taken: list[tuple[int, int, int]] = []  # place, end, last step; in order
    most = 0
    for value in values:
        taken = [other for other in taken if other[2] >= value.first]
        size = -(-math.prod(value.shape) // aligned) * aligned
        place = 0
        for begin, end, _ in taken:
            if begin - place >= size:
                break
            place = end
        value.place = place
        taken = sorted([*taken, (place, place + size, value.last)])
        most = max(most, place + size)
    return most


# Steps of a state


@dataclass(frozen=True)
class Recorded:
    """A step that is calls of our own, and may be played with those beside it.

    Attributes:
        records: the calls.
        dtype: of all values.
    """

    records: tuple[Record, ...]
    dtype: torch.dtype

    def __call__(self, state: State) -> None:
        """Play them alone."""
        Tape(self.records, {record.target for record in self.records}, self.dtype)(state)


@dataclass(frozen=True)
class Forgetting:
    """A step that drops values that nobody reads any more.

    Attributes:
        slots: theirs.
    """

    slots: tuple[int, ...]

    def __call__(self, state: State) -> None:
        """Drop them."""
        for slot in self.slots:
            state[slot] = None


def plays_apart(steps: Sequence[object]) -> bool:
    """Whether steps are tapes that take images apart, so that nobody else need do that."""
    return all(
        step.apart if isinstance(step, Tape) else isinstance(step, Forgetting) for step in steps
    )


def joined(steps: Sequence[T | Recorded | Forgetting]) -> "tuple[T | Tape | Forgetting, ...]":
    """Return steps that do the same, those that can be played together in one tape each."""
    found: list[T | Tape | Forgetting] = []
    records: list[Record] = []
    dropped: list[int] = []
    dtype = torch.float32

    def end() -> None:
        if records:
            written = {record.target for record in records}
            found.append(Tape(records, written - {*dropped}, dtype))
            dropped[:] = [slot for slot in dropped if slot not in written]
            records.clear()
        if dropped:
            found.append(Forgetting(tuple(dropped)))
            dropped.clear()

    for step in steps:
        if isinstance(step, Recorded):
            if records and step.dtype != dtype:
                end()
            records += step.records
            dtype = step.dtype
        elif isinstance(step, Forgetting):
            dropped += step.slots
        else:
            end()
            found.append(step)
    end()
    return tuple(found)
