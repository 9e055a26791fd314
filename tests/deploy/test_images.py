"""A person's images: prepared as the dataset's were, or refused with the reason."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime_pruning.datasets.decoding import decode
from runtime_pruning.deploy.card import Preprocessing
from runtime_pruning.deploy.images import prepare
from runtime_pruning.errors import DataError

COLOUR = Preprocessing(image_shape=(3, 16, 16), fit="stretch")
GREY = Preprocessing(image_shape=(1, 8, 8))


def test_files_bytes_and_images_are_prepared_alike(photograph, tmp_path: Path) -> None:
    image = photograph(1, 5)
    image.save(tmp_path / "a.png")
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    decoded = decode(tmp_path / "a.png", 16, "stretch", name="a")
    expected = torch.from_numpy(decoded / np.float32(255))
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), image]
    images_BCHW = prepare(sources, COLOUR)
    assert images_BCHW.shape == (4, 3, 16, 16)
    assert all(torch.equal(found, expected) for found in images_BCHW)
    assert torch.equal(prepare(image, COLOUR)[0], expected)


def test_grey_networks_get_luminance() -> None:
    red = Image.new("RGB", (20, 10), (255, 0, 0))
    assert prepare(red, GREY).unique().tolist() == pytest.approx([76 / 255])  # 0.299 of 255


def test_pixels_are_taken_as_they_are() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    expected = torch.from_numpy(pixels / np.float32(255))[None]
    for given in (pixels, pixels[None], torch.from_numpy(pixels), expected, expected.numpy()):
        assert torch.equal(prepare(given, GREY), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(B, 1, 8, 8\), but got \(2, 3, 8, 8\)"),
        (np.zeros((8, 8), np.uint8), r"but got \(8, 8\)"),
        (np.zeros((0, 1, 8, 8), np.uint8), "`images >= 1` must hold"),
        (np.zeros((1, 1, 8, 8), np.int64), "must be uint8, or floats in .*int64"),
        (np.full((1, 1, 8, 8), 255.0), r"but got floats in \[255, 255\]"),
        (np.full((1, 1, 8, 8), np.nan), "but got floats in"),
        ([], "`images >= 1` must hold"),
        (b"no image", "Image 0 must be an image"),
        ("nowhere.png", "'nowhere.png' must be an image"),
    ],
)
def test_what_cannot_be_used_is_refused(given, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(given, GREY)


def test_image_files_need_a_square_network() -> None:
    with pytest.raises(DataError, match="square inputs of 1 or 3 channels only"):
        prepare(Image.new("L", (4, 4)), Preprocessing(image_shape=(1, 8, 9)))
