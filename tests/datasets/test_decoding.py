"""One photograph to a fixed size: ImageNet's convention, any mode, and what is refused."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from runtime_pruning.datasets.decoding import check_header, decode, suffixes
from runtime_pruning.errors import DataError

Draw = Callable[..., Image.Image]


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (256, 256), (60, 90), (257, 301)])
def test_a_crop_is_torchvisions_for_imagenet(size: tuple[int, int], photograph: Draw) -> None:
    image = photograph(0, 1, size)
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
    found_CHW = decode(encoded(image, "PNG"), 224, "crop", name="it")
    assert np.array_equal(found_CHW.transpose(1, 2, 0), np.asarray(expected))


def test_a_stretched_image_is_seen_whole() -> None:
    halves = Image.new("RGB", (80, 20), (255, 0, 0))
    halves.paste((0, 0, 255), (40, 0, 80, 20))
    found_CHW = decode(encoded(halves, "PNG"), 4, "stretch", name="it")
    assert found_CHW.shape == (3, 4, 4)
    assert (found_CHW[0] > 127).tolist() == [[True, True, False, False]] * 4
    corner = Image.new("RGB", (80, 20))
    corner.paste((255, 255, 255), (0, 0, 20, 20))
    assert decode(encoded(corner, "PNG"), 4, "stretch", name="it").max() > 200
    assert decode(encoded(corner, "PNG"), 4, "crop", name="it").max() == 0


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(photograph: Draw) -> None:
    smooth = photograph(1, 2, (20, 15)).resize((2_000, 1_500), Image.Resampling.BICUBIC)
    lossless, lossy = (encoded(smooth, kind) for kind in ("PNG", "JPEG"))
    whole_CHW, small_CHW = (decode(f, 32, "crop", name="it") for f in (lossless, lossy))
    assert np.abs(whole_CHW.astype(int) - small_CHW.astype(int)).mean() < 0.5


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("L", "GIF")],
)
def test_any_mode_becomes_three_colours(mode: str, kind: str, photograph: Draw) -> None:
    image = photograph(0, 3).convert(mode)
    assert decode(encoded(image, kind), 8, "crop", name="it").shape == (3, 8, 8)


def test_a_palette_with_shades_of_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    file = encoded(image, "PNG", transparency=bytes([0, 128]))
    assert decode(file, 2, "crop", name="it")[:, 0, 0].tolist() == [10, 200, 30]


def test_what_is_no_whole_image_is_named(photograph: Draw) -> None:
    whole = encoded(photograph(0, 4), "JPEG").getvalue()
    for bad in (b"", b"I am text", whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=r"cat\.jpg must be an image \(JPEG, PNG, .*\): ."):
            decode(io.BytesIO(bad), 8, "crop", name="cat.jpg")


def test_a_header_alone_shows_another_format(photograph: Draw, tmp_path: Path) -> None:
    whole = encoded(photograph(0, 5), "JPEG").getvalue()
    check_header(io.BytesIO(whole[:-50]), name="cut short")
    script = encoded(photograph(0, 5), "EPS")
    for bad in (io.BytesIO(b"I am text"), script, tmp_path / "nowhere.jpg"):
        with pytest.raises(DataError, match="x must be an image"):
            check_header(bad, name="x")


def test_endings_of_image_files() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp"} <= suffixes()
    assert not {".eps", ".pdf", ".txt", ".parquet"} & suffixes()
