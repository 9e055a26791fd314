"""Where the values between native calls lie: places are shared by values that never meet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNED = 64  # bytes


@dataclass
class BufferValue:
    """What the calls of a command buffer read or write.

    Attributes:
        slot: where it comes from; None: the calls make it.
        shape: of an image; of what comes from a slot, its length alone counts.
        first: the first step that touches it.
        last: the last step that touches it.
        kept: whether it is read after the calls.
        place: of an image, in elements, in the buffer's memory.
    """

    slot: int | None
    shape: tuple[int, ...]
    first: int
    last: int
    kept: bool = False
    place: int = 0


def lay_out(values: Sequence[BufferValue], aligned: int) -> int:
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
