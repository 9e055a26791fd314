"""What the compiled library shares with Python: ``src/abi.h`` says the same, in the same order.

The library reports the size of each structure and the place and size of each field; the loader
compares them with those below (`check`). Addresses are given as numbers.
"""

import ctypes
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt
from torch import Tensor

from runtime_pruning.errors import RuntimePruningError

Numbers: TypeAlias = npt.NDArray[Any]
Counts: TypeAlias = ctypes.Array[Any]  # int64; numpy sees an array in it, and takes longer
_ADDRESS, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class AbiMismatchError(RuntimePruningError):
    """A compiled library lays a structure out otherwise than this package."""


class Opcode(IntEnum):
    """What an instruction does."""

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
    SUBSET = 10
    MOVE = 11  # Python's own: the target is the source by another name, which needs no call


class Geometry(ctypes.Structure):
    """How a layer moves over the pixels of its input; see `Frame`."""

    _fields_ = (
        ("hi", _LONG),
        ("wi", _LONG),
        ("ho", _LONG),
        ("wo", _LONG),
        ("kh", _LONG),
        ("kw", _LONG),
        ("stride_y", _LONG),
        ("stride_x", _LONG),
        ("pad_y", _LONG),
        ("pad_x", _LONG),
    )


class LayerSlice(ctypes.Structure):
    """The first input and output channels of a layer's packed weights; see `packing`."""

    _fields_ = (
        ("weight", _ADDRESS),
        ("bias", _ADDRESS),
        ("ci", _LONG),
        ("co", _LONG),
        ("tap", _LONG),
        ("block", _LONG),
    )


class Call(ctypes.Structure):
    """What a layer does whatever its width: channels that pixels have room for, and limits."""

    _fields_ = (
        ("g", Geometry),
        ("ld_in", _LONG),
        ("ld_out", _LONG),
        ("low", _FLOAT),
        ("high", _FLOAT),
        ("add", _LONG),
    )


class Decision(ctypes.Structure):
    """The weights of one decision of a network with a recurrent cell."""

    _fields_ = (
        ("encode", _ADDRESS),
        ("table", _ADDRESS),
        ("input", _ADDRESS),
        ("input_bias", _ADDRESS),
        ("carry", _ADDRESS),
        ("carry_bias", _ADDRESS),
        ("decode", _ADDRESS),
        ("decode_bias", _ADDRESS),
        ("features", _LONG),
        ("code", _LONG),
        ("hidden", _LONG),
        ("values", _LONG),
        ("lstm", _LONG),
    )


class WidthKey(ctypes.Structure):
    """The widths of a value, by the decisions of the sites that it depends on."""

    _fields_ = (
        ("sites", _LONG),
        ("counts", _LONG),
        ("site", _ADDRESS),
        ("place", _ADDRESS),
    )


class DecisionState(ctypes.Structure):
    """What makes the decisions of one batch, and keeps them."""

    _fields_ = (
        ("decisions", _ADDRESS),
        ("settled", _LONG),
        ("previous", _ADDRESS),
        ("hidden", _ADDRESS),
        ("cell", _ADDRESS),
        ("groups", _ADDRESS),
        ("sites", _LONG),
        ("keys", _ADDRESS),
        ("known", _ADDRESS),
        ("places", _ADDRESS),
        ("kept", _ADDRESS),
        ("room", _LONG),
        ("spent", _ADDRESS),
    )


class Subset(ctypes.Structure):
    """A layer of which each image runs the outputs that a branch finds salient for it."""

    _fields_ = (
        ("weight", _ADDRESS),
        ("bias", _ADDRESS),
        ("squeeze", _ADDRESS),
        ("expand", _ADDRESS),
        ("expand_bias", _ADDRESS),
        ("inputs", _LONG),
        ("hidden", _LONG),
        ("outputs", _LONG),
        ("threshold", _FLOAT),
        ("most", _FLOAT),
        ("site", _LONG),
        ("source", _LONG),
        ("scattered", _LONG),
    )


class Instruction(ctypes.Structure):
    """A call of a command buffer, between two places of its table of values."""

    _fields_ = (
        ("opcode", _LONG),
        ("call", _ADDRESS),
        ("widths", _ADDRESS),
        ("source", _LONG),
        ("target", _LONG),
        ("read", _LONG),
        ("write", _LONG),
        ("writes", _LONG),
        ("site", _LONG),
        ("subset", _ADDRESS),
    )


class BufferLayout(ctypes.Structure):
    """Where the values between calls lie; see `memory_plan`."""

    _fields_ = (("elements", _LONG), ("places", _ADDRESS))


STRUCTURES: tuple[type[ctypes.Structure], ...] = (
    *(Geometry, LayerSlice, Call, Decision, WidthKey, DecisionState, Subset, Instruction),
    BufferLayout,
)


def check(rows: Iterable[tuple[str, int, int]]) -> None:
    """Compare what a library reports with what this module says.

    Args:
        rows: names with place and size in bytes: ``"Call"``, ``"Call.low"``; and opcodes with
            their numbers: ``"Opcode.kMaxPool"``.

    Raises:
        AbiMismatchError: they differ; it names the structure and the field.
    """
    found = {name: (place, size) for name, place, size in rows}
    own = _rows()
    for name in [*own, *found]:
        here, there = own.get(name), found.get(name)
        if here != there:
            raise AbiMismatchError(
                f"The compiled library and abi.py must agree, but {name} is {_told(there)} in the "
                f"library and {_told(here)} in abi.py."
            )


def _rows() -> dict[str, tuple[int, int]]:
    """Return what a library that agrees reports."""
    rows = {}
    for structure in STRUCTURES:
        rows[structure.__name__] = (0, ctypes.sizeof(structure))
        for name, *_ in structure._fields_:
            field = getattr(structure, name)
            rows[f"{structure.__name__}.{name}"] = (field.offset, field.size)
    for opcode in Opcode:
        if opcode != Opcode.MOVE:
            rows[f"Opcode.k{opcode.name.title().replace('_', '')}"] = (int(opcode), 0)
    return rows


def _told(row: tuple[int, int] | None) -> str:
    """Return a row in words."""
    return "absent" if row is None else f"at {row[0]}, of {row[1]} bytes"


def slices(rows: Iterable[LayerSlice]) -> "ctypes.Array[LayerSlice]":
    """Return slices of a layer as a table, in which instructions find those of each image."""
    own = tuple(rows)
    return (LayerSlice * len(own))(*own)


class Decisions(NamedTuple):
    """What makes the decisions of one batch; the rest of a `DecisionState` is the batch's own.

    Attributes:
        calls: address of a table of the addresses of each site's `Decision`.
        settled: of so many first sites all images have one group.
        state: addresses of the last decisions, the hidden states, and the cells.
    """

    calls: int
    settled: int
    state: tuple[int, int, int]


ALIKE = (None, None, 1, None)  # all images have the first width, and nothing is counted


class Frame(NamedTuple):
    """How a convolution, or a pooling, moves over the pixels of one size of image."""

    size: tuple[int, int]  # of what it reads
    out: tuple[int, int]  # of what it returns
    kernel: tuple[int, int]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def of(
        cls,
        like: Tensor,
        kernel: Sequence[int],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> "Frame":
        """Return the frame on images like these; undilated."""
        return cls.over((like.shape[2], like.shape[3]), kernel, stride, padding)

    @classmethod
    def over(
        cls,
        size: tuple[int, int],
        kernel: Sequence[int] = (1, 1),
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0),
    ) -> "Frame":
        """Return the frame on images of so many rows and columns."""
        high, wide = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))
        return cls(size, (high, wide), (kernel[0], kernel[1]), stride, padding)

    def call(self, inputs: int, outputs: int, limits: tuple[float, float], *, add: bool) -> Call:
        """Return the call of a layer.

        Args:
            inputs: channels that a pixel of what is read has room for.
            outputs: of what is written.
            limits: results are clamped to.
            add: whether results are added to what is there.
        """
        geometry = Geometry(*self.size, *self.out, *self.kernel, *self.stride, *self.padding)
        return Call(geometry, inputs, outputs, *limits, add)


ALONE = Frame.over((1, 1))  # one pixel, as a linear layer sees it
