"""One photograph, from its encoded bytes to pixels of a fixed size.

Sizes as ImageNet's networks are measured: the shorter side to 8/7 of the size (256 for 224), then
the centre; the arithmetic is torchvision's ``Resize`` and ``CenterCrop`` on Pillow's images. As
there, marks of orientation are not followed.
Pixels of 16 bits keep their upper eight, as Pillow does itself where there are three colours.
Pixels without a stated range (32-bit integers, floats) are refused.
Source: Krizhevsky, Sutskever, Hinton, NeurIPS 2012, section 2; He et al., CVPR 2016, section 4.1.

Dimensions: C channels (red, green, blue), H W pixels.
"""

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from runtime_pruning.datasets.images import UInt8Array
from runtime_pruning.errors import DataError

Fit = Literal["crop", "stretch"]
"""``crop``: shorter side, then centre. ``stretch``: the whole image, its aspect not kept."""

# What Pillow decodes by itself: PostScript, for one, would start another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# Modes of Pillow's whose conversion to RGB keeps what is seen.
_DIRECT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # colours times opacity, and the same without
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_SIXTEEN_BITS_AS_I = frozenset({"PNG", "PPM"})  # formats that hold no wider integers

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_WHITE_IS_ZERO = 0

SLENDEREST = 100  # longer side of an image over its shorter


def suffixes() -> frozenset[str]:
    """Return the endings of image files, in lower case, dot included."""
    Image.init()
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in FORMATS)


def decode(source: Path | BytesIO, size: int, fit: Fit, *, name: str) -> UInt8Array:
    """Return ``image_CHW`` of shape (3, size, size).

    Args:
        source: a file, or the bytes of one.
        size: pixels of each side.
        fit: how an image of another shape becomes square.
        name: for messages.

    Raises:
        DataError: it is no image of a known format, is damaged, or has pixels of a kind that has no
            one meaning as colours.
    """
    shorter = size * 8 // 7
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_sides(image.size)
            wanted = (size, size) if fit == "stretch" else _shrunk(image.size, shorter)
            # A JPEG decodes at half its size, or less, where that is still twice what is wanted.
            drafted = image.draft("RGB", (2 * wanted[0], 2 * wanted[1]))
            box = drafted[1] if drafted else None
            resized = _rgb(image).resize(wanted, Image.Resampling.BILINEAR, box=box)
    except Exception as error:  # on damaged bytes Pillow's parsers raise errors of many kinds
        raise _no_image(name, error) from error
    return np.asarray(_centre(resized, size)).transpose(2, 0, 1)


def fault(encoded: bytes | memoryview) -> str | None:
    """Return why an image's bytes cannot be decoded, or None: all of its pixels are looked at.

    A JPEG is decoded at an eighth of its size, for which all of its bytes are read.
    """
    try:
        decode(BytesIO(encoded), 1, "stretch", name="it")
    except DataError as error:
        return str(error.__cause__)
    return None


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image in three colours; what is transparent shows its colour."""
    mode, form = image.mode, image.format
    if mode in _SIXTEEN_BITS or (mode == "I" and form in _SIXTEEN_BITS_AS_I):
        return _upper_bits(image).convert("RGB")
    if mode in _PREMULTIPLIED:
        return image.convert(_PREMULTIPLIED[mode]).convert("RGB")
    if mode not in _DIRECT:
        raise ValueError(
            f"pixels of mode {mode!r} in {form} have no one meaning as colours; save it with 8 or "
            "16 unsigned bits a channel"
        )
    if mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of up to 16 bits in 8 bits."""
    bits, white_is_zero = 16, False
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (bits,))[0]
        white_is_zero = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    grey_HW = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - grey_HW if white_is_zero else grey_HW)


def _check_sides(size: tuple[int, int]) -> None:
    """Refuse a line of pixels, of which a crop at a usual size would take all memory."""
    if max(size) > SLENDEREST * min(size):
        raise ValueError(
            f"its longer side may be at most {SLENDEREST} times its shorter, but it has "
            f"{size[0]} x {size[1]} pixels"
        )


def _shrunk(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return width and height of which the lesser is ``shorter``."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Return the middle size x size pixels."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _no_image(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{name} must be an image ({', '.join(FORMATS)}): {reason}")
