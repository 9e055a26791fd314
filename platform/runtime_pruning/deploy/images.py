"""A person's images, prepared as a bundle's network takes them.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from runtime_pruning.deploy.card import Preprocessing
from runtime_pruning.errors import DataError

ImageSource: TypeAlias = str | Path | bytes | Image.Image
"""A file, the bytes of one, or an image of Pillow's."""

Images: TypeAlias = Tensor | npt.NDArray[Any] | ImageSource | Sequence[ImageSource]
"""Pixels that need no preparation, shape (B, C, H, W) or (C, H, W): uint8, or floats in [0, 1]; or
images to prepare."""


def prepare(images: Images, how: Preprocessing) -> Tensor:
    """Return ``images_BCHW``, float32 in [0, 1].

    Raises:
        DataError: an image that cannot be decoded, or pixels of another shape, type or range; the
            message says which.
    """
    if isinstance(images, Tensor | np.ndarray):
        # A copy: torch warns of memory that it cannot write to, as a split's is.
        pixels = torch.from_numpy(images.copy()) if isinstance(images, np.ndarray) else images
        return _pixels(pixels, how)
    if isinstance(images, str | Path | bytes | Image.Image):
        images = [images]
    if not images:
        raise DataError("`images >= 1` must hold, but got none.")
    decoded = [decoded_image(source, how, f"Image {n}") for n, source in enumerate(images)]
    return torch.from_numpy(np.stack(decoded)).to(torch.float32).div_(255)


def _pixels(pixels: Tensor, how: Preprocessing) -> Tensor:
    """Return pixels as floats, once they are what the network takes."""
    pixels_BCHW = pixels[None] if pixels.ndim == 3 else pixels
    if pixels_BCHW.ndim != 4 or tuple(pixels_BCHW.shape[1:]) != how.image_shape:
        raise DataError(
            f"Pixels must have the shape (B, {', '.join(map(str, how.image_shape))}), but got "
            f"{tuple(pixels.shape)}."
        )
    if not len(pixels_BCHW):
        raise DataError("`images >= 1` must hold, but got none.")
    if pixels.dtype == torch.uint8:
        return pixels_BCHW.to(torch.float32).div_(255)
    if not pixels.is_floating_point():
        raise DataError(f"Pixels must be uint8, or floats in [0, 1], but got {pixels.dtype}.")
    floats_BCHW = pixels_BCHW.to(torch.float32)
    low, high = float(floats_BCHW.min()), float(floats_BCHW.max())
    if not 0 <= low <= high <= 1:  # also false of what is no number
        raise DataError(
            f"Pixels must be uint8, or floats in [0, 1], but got floats in [{low:g}, {high:g}]."
        )
    return floats_BCHW


def decoded_image(source: ImageSource, how: Preprocessing, name: str) -> npt.NDArray[np.uint8]:
    """Return ``image_CHW``, resized and coloured as the dataset's images were.

    Raises:
        DataError: it cannot be decoded, or the network takes images that are not square.
    """
    # It brings Arrow with it, which whoever has pixels already need not have.
    from runtime_pruning.datasets.decoding import decode

    channels, height, width = how.image_shape
    if height != width or channels not in (1, 3):
        raise DataError(
            "Image files can be prepared for square inputs of 1 or 3 channels only, but the "
            f"network takes {how.image_shape}: give it pixels."
        )
    if isinstance(source, Image.Image):
        buffer = BytesIO()
        source.save(buffer, format="PNG")
        source = buffer.getvalue()
    if not isinstance(source, bytes):
        name = repr(str(source))
    encoded = BytesIO(source) if isinstance(source, bytes) else Path(source)
    image_CHW = decode(encoded, height, how.fit, name=name)
    if channels == 3:
        return image_CHW
    grey_HW = np.asarray(Image.fromarray(image_CHW.transpose(1, 2, 0)).convert("L"))
    return grey_HW[None]
