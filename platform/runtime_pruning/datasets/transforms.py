"""From stored bytes to what a backbone takes, and random crops and flips of it.

Dimensions: B images, C channels, H W pixels.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.datasets.images import UInt8Array
from runtime_pruning.errors import DataError


def to_float(images_uint8: UInt8Array | Tensor) -> Tensor:
    """Return images as float32 in [0, 1], same shape, in memory of their own.

    Raises:
        DataError: the images are not uint8.
    """
    if isinstance(images_uint8, Tensor):
        if images_uint8.dtype != torch.uint8:
            raise DataError(f"Images must be uint8, but got {images_uint8.dtype}.")
        return images_uint8.to(torch.float32).div_(255)
    if images_uint8.dtype != np.uint8:
        raise DataError(f"Images must be uint8, but got {images_uint8.dtype}.")
    # Divided by numpy: torch warns about memory that it cannot write to, as a split's is.
    return torch.from_numpy(np.divide(images_uint8, np.float32(255), dtype=np.float32))


def augment(images_BCHW: Tensor, *, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Return a random crop of each zero-padded image, half of them mirrored where asked.

    Args:
        images_BCHW: float images, on the generator's device.
        pad: zero pixels added on each side before an H x W crop is drawn; 0 for no crop.
        flip: mirror each image, left to right, with probability 1/2.
        generator: the only source of randomness.

    Raises:
        DataError: ``pad`` is below zero.
    """
    if pad < 0:
        raise DataError(f"`pad >= 0` must hold, but got {pad}.")
    count, _, height, width = images_BCHW.shape
    device = images_BCHW.device
    if pad:
        padded_BCHW = functional.pad(images_BCHW, (pad, pad, pad, pad))
        # A view that holds all (2 pad + 1)^2 crops of each image; only the drawn ones are copied.
        crops = padded_BCHW.unfold(2, height, 1).unfold(3, width, 1)
        shift_2B = torch.randint(2 * pad + 1, (2, count), generator=generator, device=device)
        images_BCHW = crops[torch.arange(count, device=device), :, shift_2B[0], shift_2B[1]]
    if flip:
        flip_B = torch.rand(count, generator=generator, device=device) < 0.5
        images_BCHW = torch.where(flip_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)
    return images_BCHW
