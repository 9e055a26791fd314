"""The structures that the compiled library shares with Python, each defined once."""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt
from torch import Tensor

Numbers: TypeAlias = npt.NDArray[Any]
Counts: TypeAlias = ctypes.Array[Any]  # int64; numpy sees an array in it, and takes longer


class Decisions(NamedTuple):
    """What makes the decisions of one batch in the source; see ``DecisionState`` there.

    Attributes:
        calls: address of a table of the addresses of each site's ``Decision``.
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

    def call(
        self, inputs: int, outputs: int, limits: tuple[float, float], *, add: bool
    ) -> ctypes.Array[ctypes.c_char]:
        """Return a ``Call`` of the source.

        Args:
            inputs: channels that a pixel of what is read has room for.
            outputs: of what is written.
            limits: results are clamped to.
            add: whether results are added to what is there.
        """
        numbers = (*self.size, *self.out, *self.kernel, *self.stride, *self.padding)
        packed = struct.pack("10q2q2fq", *numbers, inputs, outputs, *limits, add)
        return ctypes.create_string_buffer(packed, len(packed))


ALONE = Frame.over((1, 1))  # one pixel, as a linear layer sees it
