"""Many PNGs at once: any number of threads gives the same pixels in the same places."""

import io

import numpy as np
import pytest
from PIL import Image

from runtime_pruning.datasets.png import CHUNK, decode_pngs
from runtime_pruning.errors import DataError

COUNT = 2 * CHUNK + 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 4, 5), np.uint8)


def encode(image_CHW: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_CHW.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


PNGS = [encode(image) for image in IMAGES]


@pytest.mark.parametrize("threads", [1, 4, None])
def test_pixels_survive_in_their_order(threads: int | None) -> None:
    assert np.array_equal(decode_pngs(PNGS, (3, 4, 5), what="noise", threads=threads), IMAGES)


def test_a_grey_png_has_one_channel() -> None:
    grey_HW = np.array([[0, 7], [8, 255]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey_HW).save(file, "PNG")
    decoded = decode_pngs([file.getvalue()], (1, 2, 2), what="grey")
    assert decoded.tolist() == [[[[0, 7], [8, 255]]]]


def test_the_row_of_a_bad_image_is_counted_through_all_chunks() -> None:
    row = CHUNK + 1
    pngs = [*PNGS[:row], b"no picture", *PNGS[row + 1 :]]
    with pytest.raises(DataError, match=f"Row {row} of noise must be a PNG"):
        decode_pngs(pngs, (3, 4, 5), what="noise", threads=2)


def test_another_image_format_is_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "BMP")
    with pytest.raises(DataError, match=r"Row 0 of x must be a PNG"):
        decode_pngs([file.getvalue()], (3, 4, 5), what="x")


def test_numbers_of_a_palette_are_no_shades() -> None:
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    file = io.BytesIO()
    image.save(file, "PNG")
    with pytest.raises(DataError, match=r"Row 0 of x must hold colours, but .* a palette"):
        decode_pngs([file.getvalue()], (1, 4, 5), what="x")


def test_16_bits_are_refused_by_name() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5), 65_535, np.uint16)).save(file, "PNG")
    with pytest.raises(DataError, match=r"Row 0 of x must be uint8 .*, but got uint16"):
        decode_pngs([file.getvalue()], (1, 4, 5), what="x")
