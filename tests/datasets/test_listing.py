"""What all listings share: rows of parts, names that can be printed, classes that agree."""

import numpy as np
import pyarrow as pa
import pytest

from runtime_pruning.datasets.folder import FileImages
from runtime_pruning.datasets.listing import MOST_CLASSES, ImageListing, check_classes, printable
from runtime_pruning.errors import DataError


def test_rows_of_a_part() -> None:
    names = pa.array([b"a", b"b", b"c"])
    parts = np.array([0, 2, 0])
    listing = ImageListing(FileImages("/", names), parts, parts, ("x", "y"), names, "/")
    found = {part: listing.rows(part).tolist() for part in ("train", "validation", "test")}
    assert found == {"train": [0, 2], "validation": [], "test": [1]}


def test_a_name_that_is_no_utf_8_can_be_printed() -> None:
    assert printable("caf\udce9") == r"caf\xe9"
    assert printable("café $\\frac{$") == "café $\\frac{$"
    printable("\udc80\udcff").encode("utf-8")


@pytest.mark.parametrize(
    ("classes", "expected", "message"),
    [
        (("a",), ("a",), r"two classes or more, but holds only \['a'\]"),
        (("a", "c"), ("a", "b"), r"lacks \['b'\] and adds \['c'\]"),
        ((), tuple(map(str, range(MOST_CLASSES + 1))), "at most 100,000 .* but holds 100,001"),
    ],
)
def test_classes_that_do_not_agree_are_named(
    classes: tuple[str, ...], expected: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=f"It must hold .*{message}"):
        check_classes("It", classes, expected)
