"""Memory: layouts, huge pages, and what glibc keeps."""

import contextlib
import ctypes
import functools
import mmap
import os

import torch
from torch import Tensor

KEPT = 1024 * 1024 * 1024  # bytes of freed memory that stay with the process
KEPT_BLOCK = 32 * 1024 * 1024  # bytes of the largest block that may; glibc allows no more
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers in glibc's malloc.h
HUGE = 2 * 1024 * 1024  # bytes of a huge page


def on_huge_pages(tensor: Tensor) -> Tensor:
    """Return a large tensor in memory of huge pages, where the system has them; a copy.

    Weights that are read once per image come from memory as fast as its pages can be found: 26 GB/s
    by pages of 4 KiB, 35 by pages of 2 MiB (one core of an EPYC).
    """
    size = tensor.nbytes
    if size < 2 * HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return tensor
    room = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        room.madvise(mmap.MADV_HUGEPAGE)
    bytes_N = torch.frombuffer(room, dtype=torch.uint8)
    first = -bytes_N.data_ptr() % HUGE
    placed = bytes_N[first : first + size].view(tensor.dtype).view(tensor.shape)
    return placed.copy_(tensor)


@functools.cache
def keep_memory() -> None:
    """Have glibc keep what is freed, for the whole process, unless its settings say otherwise.

    Feature maps come and go with each layer. Left alone it gives a few megabytes back to the system
    after each pass and takes them, cleared page by page, in the next: 2 ms for 16 images in the
    first layer of M-CifarNet, whose arithmetic takes 0.7.
    """
    told = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if any(name in os.environ for name in told):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, KEPT)


def empty(batch: int, channels: int, out: tuple[int, int], like: Tensor) -> Tensor:
    """Return an uninitialised tensor (B, C, H, W), channels last."""
    return like.new_empty((batch, *out, channels)).permute(0, 3, 1, 2)


def channels_last(features_BCHW: Tensor) -> Tensor:
    """Return the features with the channels of a pixel side by side."""
    return features_BCHW.contiguous(memory_format=torch.channels_last)
