"""One photograph to a fixed size: ImageNet's convention, any mode, and what is refused."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from runtime_pruning.datasets.decoding import decode, fault, suffixes
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


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_16(levels_HWC: np.ndarray) -> io.BytesIO:
    """Encode 16-bit levels as a PNG; Pillow writes grey ones only. PNG's specification, 11.2."""
    height, width, channels = levels_HWC.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels_HWC)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))


def tiff(
    pixels: bytes, side: int, bits: tuple[int, ...], order: str = "<", **tags: int
) -> io.BytesIO:
    """Encode a square image as an uncompressed TIFF of one strip. TIFF 6.0, section 2."""
    numbers = {"photometric": 262, "extra": 338, "form": 339, "fill": 266}
    entries = {256: side, 257: side, 259: 1, 262: 1, 273: 8, 277: len(bits), 278: side}
    entries |= {279: len(pixels), 258: bits[0]} | {numbers[name]: tags[name] for name in tags}
    after = 8 + len(pixels)
    directory = struct.pack(order + "H", len(entries))
    tail = b""
    for tag, value in sorted(entries.items()):
        many = len(bits) if tag == 258 else 1
        if many > 2:  # they do not fit the entry
            place = after + 2 + 12 * len(entries) + 4
            directory += struct.pack(order + "HHII", tag, 3, many, place)
            tail = struct.pack(f"{order}{many}H", *bits)
        elif many == 2:
            directory += struct.pack(order + "HHIHH", tag, 3, many, *bits)
        elif tag in (273, 279):
            directory += struct.pack(order + "HHII", tag, 4, 1, value)
        else:
            directory += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, after)
    return io.BytesIO(magic + pixels + directory + struct.pack(order + "I", 0) + tail)


# Sixteen levels of 16 bits from black to white, and the upper byte of each.
RAMP = np.linspace(0, 65_535, 16).round().astype(np.uint16).reshape(4, 4)
SHADES = [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255]


def shades(file: io.BytesIO) -> list[list[int]]:
    """Return the pixels of a 4x4 image, a list per colour."""
    return decode(file, 4, "stretch", name="it").reshape(3, -1).tolist()


@pytest.mark.parametrize(
    "file",
    [
        encoded(Image.fromarray(RAMP), "PNG"),
        encoded(Image.fromarray(RAMP), "PPM"),
        encoded(Image.fromarray(RAMP), "TIFF"),
        encoded(Image.fromarray(RAMP.astype(np.int32)), "PPM"),
        png_16(RAMP[..., None]),
        png_16(np.stack([RAMP, RAMP * 0 + 99], axis=-1)),
        png_16(np.stack([RAMP] * 3, axis=-1)),
        png_16(np.stack([RAMP] * 3 + [RAMP * 0], axis=-1)),
        tiff(RAMP.astype("<u2").tobytes(), 4, (16,)),
        tiff(RAMP.astype(">u2").tobytes(), 4, (16,), ">"),
        tiff((65_535 - RAMP).astype("<u2").tobytes(), 4, (16,), photometric=0),
        tiff(np.repeat(RAMP.astype("<u2"), 3).tobytes(), 4, (16, 16, 16), photometric=2),
    ],
    ids=["png", "ppm", "tiff", "ppm 32", "png grey", "png grey, opacity", "png rgb", "png rgba",
         "tiff little", "tiff big", "tiff white is zero", "tiff rgb"],
)  # fmt: skip
def test_a_ramp_of_16_bits_stays_a_ramp(file: io.BytesIO) -> None:
    assert shades(file) == [SHADES] * 3


def test_a_ramp_of_12_bits_stays_a_ramp() -> None:
    # Two levels in three bytes: 0x000 0x111, 0x222 0x333, ...
    nibbles = "".join(f"{level:x}" * 3 for level in range(16))
    assert shades(tiff(bytes.fromhex(nibbles), 4, (12,))) == [SHADES] * 3


def test_opacity_that_dims_a_grey_image_is_undone() -> None:
    # Level 64 at an opacity of a half is level 128 (127.5, rounded by Pillow).
    found = shades(tiff(bytes([64, 128] * 16), 4, (8, 8), extra=1))
    assert found == [[found[0][0]] * 16] * 3
    assert found[0][0] in (127, 128)


@pytest.mark.parametrize(
    ("file", "mode"),
    [
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "'F' in TIFF"),
        (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "'I' in TIFF"),
        (tiff(RAMP.astype("<i2").tobytes(), 4, (16,), form=2), "'I' in TIFF"),
        (tiff(bytes(48), 4, (8, 8, 8), photometric=8), "'LAB' in TIFF"),
    ],
    ids=["floats", "32 bits", "signed", "lab"],
)
def test_pixels_without_a_stated_range_are_refused_by_name(file: io.BytesIO, mode: str) -> None:
    with pytest.raises(DataError, match=f"x must be an image .*pixels of mode {mode} have no one"):
        decode(file, 4, "stretch", name="x")


def test_what_is_no_whole_image_is_named(photograph: Draw) -> None:
    whole = encoded(photograph(0, 4), "JPEG").getvalue()
    for bad in (b"", b"I am text", whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=r"cat\.jpg must be an image \(JPEG, PNG, .*\): ."):
            decode(io.BytesIO(bad), 8, "crop", name="cat.jpg")


def test_a_line_of_pixels_is_refused() -> None:
    line = encoded(Image.new("L", (101, 1)), "PNG")
    with pytest.raises(DataError, match="at most 100 times its shorter, but it has 101 x 1 pixels"):
        decode(line, 8, "crop", name="it")
    assert decode(encoded(Image.new("L", (1, 100)), "PNG"), 8, "crop", name="it").shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_fault_is_found_wherever_the_image_ends(kind: str, photograph: Draw) -> None:
    whole = encoded(photograph(0, 5, (200, 150)), kind).getvalue()
    assert fault(whole) is None
    for share in (0, 0.01, 0.3, 0.6, 0.9):
        assert fault(whole[: int(share * len(whole))]), f"{share:.0%} of the bytes"


def test_a_fault_of_a_script_is_that_it_is_no_image(photograph: Draw) -> None:
    assert "cannot identify image" in str(fault(encoded(photograph(0, 5), "EPS").getvalue()))


def test_bytes_turned_by_chance_never_raise(photograph: Draw) -> None:
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"):
        whole = encoded(photograph(0, 6, (24, 16)), kind).getvalue()
        reasons = []
        for _ in range(40):
            turned = bytearray(whole)
            for place in random.integers(0, min(len(turned), 200), 4):
                turned[place] = random.integers(256)
            reasons.append(fault(bytes(turned)))
        assert any(reasons), kind


def test_endings_of_image_files() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp"} <= suffixes()
    assert not {".eps", ".pdf", ".txt", ".parquet"} & suffixes()
