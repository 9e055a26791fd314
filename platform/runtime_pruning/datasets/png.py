"""Decode many PNGs at once: a thread per core, one output array, a progress bar.

Dimensions: N images, C channels, H W pixels.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from runtime_pruning.datasets.images import UInt8Array
from runtime_pruning.datasets.parallel import map_rows, usable_cores
from runtime_pruning.errors import DataError

CHUNK = 512  # images that one thread decodes between two ticks of the bar


def decode_pngs(
    pngs: Sequence[bytes],
    image_shape: tuple[int, int, int],
    *,
    what: str,
    threads: int | None = None,
) -> UInt8Array:
    """Return ``images_NCHW``, uint8.

    Args:
        pngs: encoded images.
        image_shape: (C, H, W) that each must have.
        what: a name for the progress bar and for messages; the bar is shown on a terminal only.
        threads: as many as there are usable cores by default.

    Raises:
        DataError: an image is no PNG or has another shape; the message gives its row.
    """
    images_NCHW = np.empty((len(pngs), *image_shape), np.uint8)

    def decode(rows: range) -> None:
        _decode_rows(pngs, rows, images_NCHW, what)

    with tqdm(total=len(pngs), desc=f"Decoding {what}", unit="image", disable=None) as bar:
        for rows in map_rows(len(pngs), decode, threads=threads or usable_cores(), chunk=CHUNK):
            bar.update(len(rows))
    return images_NCHW


def _decode_rows(pngs: Sequence[bytes], rows: range, images_NCHW: UInt8Array, what: str) -> None:
    """Decode some rows into their places; the pixels are unpacked without Python's lock."""
    for row in rows:
        try:
            with Image.open(BytesIO(pngs[row]), formats=("PNG",)) as image:
                mode, image_HWC = image.mode, np.atleast_3d(np.asarray(image))
        except Exception as error:  # on damaged bytes Pillow raises errors of many kinds
            raise DataError(f"Row {row} of {what} must be a PNG: {error}") from error
        if mode == "P":
            raise DataError(
                f"Row {row} of {what} must hold colours, but its pixels are numbers of a palette."
            )
        image_CHW = image_HWC.transpose(2, 0, 1)
        if image_CHW.shape != images_NCHW.shape[1:] or image_CHW.dtype != np.uint8:
            raise DataError(
                f"Row {row} of {what} must be uint8 of shape {images_NCHW.shape[1:]}, "
                f"but got {image_CHW.dtype} of shape {image_CHW.shape}."
            )
        images_NCHW[row] = image_CHW
