"""What a folder of images turns out to hold, whatever form it has.

Dimensions: N images in all.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.stored import EncodedImages
from runtime_pruning.errors import DataError

# Names that a part of a dataset goes by, as a folder or as the beginning of a file's name.
PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}


class ImageListing(NamedTuple):
    """Labelled images.

    Attributes:
        encoded: all images.
        labels_N: of each.
        part_N: index in `PARTS` of each.
        classes: names by label.
        key: what the images are, as text: their names, in order.
    """

    encoded: EncodedImages
    labels_N: Int64Array
    part_N: Int64Array
    classes: tuple[str, ...]
    key: str

    def rows(self, part: str) -> Int64Array:
        """Return the rows of a part, none where there is no such part."""
        return np.flatnonzero(self.part_N == list(PARTS).index(part))


def check_classes(where: str, classes: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Refuse one class only, and parts of which the classes differ.

    Args:
        where: what is looked at, for messages.
        classes: that it holds.
        expected: those of the dataset.

    Raises:
        DataError: the message names the classes.
    """
    if len(expected) < 2:
        raise DataError(f"{where} must hold two classes or more, but holds only {list(classes)}.")
    missing = sorted(set(expected) - set(classes))
    added = sorted(set(classes) - set(expected))
    if missing or added:
        raise DataError(
            f"{where} must hold the {len(expected)} classes of the dataset, "
            f"but lacks {missing[:5]} and adds {added[:5]}."
        )
