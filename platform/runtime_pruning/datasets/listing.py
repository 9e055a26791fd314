"""What a folder of images turns out to hold, whatever form it has.

Dimensions: N images in all.
"""

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.parts import PARTS
from runtime_pruning.datasets.stored import EncodedImages
from runtime_pruning.errors import DataError

MOST_CLASSES = 100_000  # ImageNet's full hierarchy has 21,841


class ImageListing(NamedTuple):
    """Labelled images, none of which has been opened.

    Attributes:
        encoded: all images.
        labels_N: of each.
        part_N: index in `PARTS` of each.
        classes: names by label.
        stamps_N: of each, bytes that change when the image does: its name, size and date.
        place: the folder or file that tells this dataset from others on this machine.
    """

    encoded: EncodedImages
    labels_N: Int64Array
    part_N: Int64Array
    classes: tuple[str, ...]
    stamps_N: pa.Array
    place: str

    def rows(self, part: str) -> Int64Array:
        """Return the rows of a part, none where there is no such part."""
        return np.flatnonzero(self.part_N == list(PARTS).index(part))


def printable(name: str) -> str:
    r"""Return a name in which what is no UTF-8 is written as ``\xff``.

    Names of files may be any bytes; those of classes are printed, stored and drawn.
    """
    escaped = re.sub("[\udc80-\udcff]", lambda found: rf"\x{ord(found[0]) - 0xDC00:x}", name)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def check_classes(where: str, classes: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Refuse one class only, too many, and parts of which the classes differ.

    Args:
        where: what is looked at, for messages.
        classes: that it holds.
        expected: those of the dataset.

    Raises:
        DataError: the message names the classes.
    """
    if len(expected) < 2:
        raise DataError(f"{where} must hold two classes or more, but holds only {list(classes)}.")
    if len(expected) > MOST_CLASSES:
        raise DataError(
            f"{where} must hold at most {MOST_CLASSES:,} classes, but holds {len(expected):,}."
        )
    missing = sorted(set(expected) - set(classes))
    added = sorted(set(classes) - set(expected))
    if missing or added:
        raise DataError(
            f"{where} must hold the {len(expected)} classes of the dataset, "
            f"but lacks {missing[:5]} and adds {added[:5]}."
        )
