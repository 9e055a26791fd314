"""One photograph, from its encoded bytes to pixels of a fixed size.

Sizes as ImageNet's networks are measured: the shorter side to 8/7 of the size (256 for 224), then
the centre; the arithmetic is torchvision's ``Resize`` and ``CenterCrop`` on Pillow's images. As
there, marks of orientation are not followed.
Source: Krizhevsky, Sutskever, Hinton, NeurIPS 2012, section 2; He et al., CVPR 2016, section 4.1.

Dimensions: C channels (red, green, blue), H W pixels.
"""

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from runtime_pruning.datasets.images import UInt8Array
from runtime_pruning.errors import DataError

Fit = Literal["crop", "stretch"]
"""``crop``: shorter side, then centre. ``stretch``: the whole image, its aspect not kept."""

# What Pillow decodes by itself: PostScript, for one, would start another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

_FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


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
        DataError: it is no image of a known format, or ends early.
    """
    shorter = size * 8 // 7
    try:
        with Image.open(source, formats=FORMATS) as image:
            wanted = (size, size) if fit == "stretch" else _shrunk(image.size, shorter)
            # A JPEG decodes at half its size, or less, where that is still twice what is wanted.
            drafted = image.draft("RGB", (2 * wanted[0], 2 * wanted[1]))
            box = drafted[1] if drafted else None
            resized = _rgb(image).resize(wanted, Image.Resampling.BILINEAR, box=box)
    except _FAULTS as error:
        raise _no_image(name, error) from error
    return np.asarray(_centre(resized, size)).transpose(2, 0, 1)


def check_header(source: Path | BytesIO, *, name: str) -> None:
    """Read no more than tells the format and the size.

    Raises:
        DataError: it is no image of a known format.
    """
    try:
        Image.open(source, formats=FORMATS).close()
    except _FAULTS as error:
        raise _no_image(name, error) from error


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image in three colours; what is transparent shows its colour."""
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return image.convert("RGB")


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
