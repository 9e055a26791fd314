"""Our own calls for CPUs, compiled from ``native.cpp`` once per machine.

oneDNN spends 20 to 100 microseconds on a call however small it is, and knows one width per call.
These cost two to four, and let each image of a batch have widths of its own. They need an x86 CPU
and a C++ compiler (the one that `torch.compile` needs); without them nothing here is used.

Dimensions: B images, C and D channels, H W pixels, F features.
"""

import contextlib
import ctypes
import functools
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

from runtime_pruning.files import locked

BLOCK = 16  # outputs that lie together in packed weights
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC")
COMPILE_SECONDS = 300
KEPT = 1024 * 1024 * 1024  # bytes of freed memory that stay with the process
KEPT_BLOCK = 32 * 1024 * 1024  # bytes of the largest block that may; glibc allows no more
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers in glibc's malloc.h
HUGE = 2 * 1024 * 1024  # bytes of a huge page
_SOURCE = Path(__file__).with_suffix(".cpp")
INFINITY = float("inf")

Numbers: TypeAlias = npt.NDArray[Any]
Counts: TypeAlias = ctypes.Array[Any]  # int64; numpy sees an array in it, and takes longer


class Functions(NamedTuple):
    """The entry points for one type of element.

    Attributes:
        convolve: see ``convolve`` in the source.
        depthwise: likewise, of the same arguments.
        linear: see ``linear_float32`` in the source.
        pool: see ``pool`` in the source.
        play: see ``play`` in the source.
        decide: see ``decide_float32`` in the source.
    """

    convolve: Callable[..., None]
    depthwise: Callable[..., None]
    linear: Callable[..., None]
    pool: Callable[..., None]
    play: Callable[..., int]
    decide: Callable[..., None]


@functools.cache
def version() -> str:
    """Return what tells these calls from earlier ones: the start of a hash of their source."""
    return hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:8]


class _Library(NamedTuple):
    """The compiled source."""

    by_type: dict[torch.dtype, Functions]
    decide: Callable[..., None]
    clear: Callable[..., None]
    settle: Callable[..., None]
    take_plans: Callable[..., int]


def functions(dtype: torch.dtype) -> Functions | None:
    """Return the functions for a type, or None where this machine has none."""
    library = _library()
    return None if library is None else library.by_type.get(dtype)


def decide() -> Callable[..., None] | None:
    """Return ``decide`` of the source, or None where this machine has no compiled calls."""
    library = _library()
    return None if library is None else library.decide


def settle() -> Callable[..., None]:
    """Return ``settle`` of the source; there are compiled calls."""
    library = _library()
    assert library is not None
    return library.settle


def clear(features: Tensor, first_B: Numbers, last_B: Numbers) -> None:
    """Set channels ``[first, last)`` of each image to zero.

    Args:
        features: shape (B, C) or (B, C, H, W), channels last.
        first_B: int64.
        last_B: int64.
    """
    library = _library()
    assert library is not None
    batch, channels = features.shape[:2]
    library.clear(
        *(features.data_ptr(), channels, features[0, 0].numel(), first_B.ctypes.data),
        *(last_B.ctypes.data, batch, features.element_size()),
    )


def take_plans(groups_BL: Tensor, most: int) -> tuple[Counts, bool, bool] | None:
    """Copy group counts, int64, on the CPU; None where this machine has no compiled calls.

    Returns:
        Counts (B, L), whether each is in [1, most], and whether all images have the same.
    """
    library = _library()
    if library is None:
        return None
    (batch, sites), strides = groups_BL.shape, groups_BL.stride()
    counts: Counts = (ctypes.c_int64 * sites * batch)()
    found = library.take_plans(groups_BL.data_ptr(), *strides, batch, sites, most, counts)
    return counts, found > 0, found == 1


class Decisions(NamedTuple):
    """What makes the decisions of one batch in the source; see ``Deciding`` there.

    Attributes:
        calls: address of a table of the addresses of each site's ``Decision``.
        settled: of so many first sites all images have one group.
        state: addresses of the last decisions, the hidden states, and the cells.
    """

    calls: int
    settled: int
    state: tuple[int, int, int]


def pool(own: Functions, features_BCHW: Tensor, channels_B: Numbers | None, most: int) -> Tensor:
    """Return ``mean_BF``, float32, over the pixels of each image's first channels; zeros behind.

    Args:
        own: of the features' type.
        features_BCHW: channels last.
        channels_B: int64; None: all that are there.
        most: length F.
    """
    batch, room, height, width = features_BCHW.shape
    mean_BF = torch.empty(batch, most)
    given = None if channels_B is None else channels_B.ctypes.data
    own.pool(
        *(features_BCHW.data_ptr(), room, height * width, given, room, batch),
        *(mean_BF.data_ptr(), most, torch.get_num_threads()),
    )
    return mean_BF


ALIKE = (None, None, 1, None)  # all images have the first width, and nothing is counted


class Packed:
    """Weights of a convolution as the functions read them; any number of first outputs can run.

    Args:
        weight: shape (D, C, h, w), in the type of the features.
        bias: shape (D,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        outputs, inputs, height, width = weight.shape
        step = 4 // weight.dtype.itemsize
        blocks, whole = -(-outputs // BLOCK), -(-inputs // step) * step
        padded = weight.new_zeros(blocks * BLOCK, whole, height, width)
        padded[:outputs, :inputs] = weight
        split = padded.view(blocks, BLOCK, whole // step, step, height, width)
        self.weight = on_huge_pages(split.permute(0, 4, 5, 2, 1, 3).contiguous())
        self.bias = torch.zeros(blocks * BLOCK)
        if bias is not None:
            self.bias[:outputs] = bias.float()
        tap = whole * BLOCK
        self._strides = (tap, height * width * tap)

    def row(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """Return a ``Width`` of the source: the weights of the first inputs and outputs."""
        return (self.weight.data_ptr(), self.bias.data_ptr(), inputs, outputs, *self._strides)


def packed_linear(weight: Tensor, bias: Tensor | None) -> Packed:
    """Return the weights of a linear layer, shape (D, C), packed as those of a 1x1 convolution."""
    return Packed(weight[:, :, None, None], bias)


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


class PackedDepthwise:
    """Weights of a depthwise convolution, likewise.

    Args:
        weight: shape (C, 1, h, w), in the type of the features.
        bias: shape (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        channels, _, height, width = weight.shape
        self._room = -(-channels // BLOCK) * BLOCK
        self.weight = weight.new_zeros(height, width, self._room)
        self.weight[..., :channels] = weight[:, 0].permute(1, 2, 0)
        self.bias = torch.zeros(self._room)
        if bias is not None:
            self.bias[:channels] = bias.float()

    def row(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """Return a ``Width`` of the source: the weights of the first channels."""
        assert inputs == outputs
        return (self.weight.data_ptr(), self.bias.data_ptr(), inputs, outputs, self._room, 0)


class Frame(NamedTuple):
    """How a convolution, or a pooling, moves over the pixels of one size of image."""

    size: tuple[int, int]  # of what it reads
    out: tuple[int, int]  # of what it returns
    kernel: tuple[int, int]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def of(
        cls,
        like: Tensor,
        kernel: Sequence[int],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> "Frame":
        """Return the frame on images like these; undilated."""
        return cls.over((like.shape[2], like.shape[3]), kernel, stride, padding)

    @classmethod
    def over(
        cls,
        size: tuple[int, int],
        kernel: Sequence[int] = (1, 1),
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0),
    ) -> "Frame":
        """Return the frame on images of so many rows and columns."""
        high, wide = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))
        return cls(size, (high, wide), (kernel[0], kernel[1]), stride, padding)

    def call(
        self, inputs: int, outputs: int, limits: tuple[float, float], *, add: bool
    ) -> ctypes.Array[ctypes.c_char]:
        """Return a ``Call`` of the source.

        Args:
            inputs: channels that a pixel of what is read has room for.
            outputs: of what is written.
            limits: results are clamped to.
            add: whether results are added to what is there.
        """
        numbers = (*self.size, *self.out, *self.kernel, *self.stride, *self.padding)
        packed = struct.pack("10q2q2fq", *numbers, inputs, outputs, *limits, add)
        return ctypes.create_string_buffer(packed, len(packed))


ALONE = Frame.over((1, 1))  # one pixel, as a linear layer sees it


def empty(batch: int, channels: int, out: tuple[int, int], like: Tensor) -> Tensor:
    """Return an uninitialised tensor (B, C, H, W), channels last."""
    return like.new_empty((batch, *out, channels)).permute(0, 3, 1, 2)


def channels_last(features_BCHW: Tensor) -> Tensor:
    """Return the features with the channels of a pixel side by side."""
    return features_BCHW.contiguous(memory_format=torch.channels_last)


@functools.cache
def _library() -> _Library | None:
    """Return the compiled source; None where it cannot be compiled or loaded."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    try:
        library = ctypes.CDLL(str(_compiled(_SOURCE, compiler)))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    pool = [pointer, number, number, pointer, number, number, pointer, number, number]
    by_type = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        if hasattr(library, f"convolve_{name}"):
            own: Any = Functions(
                *(getattr(library, f"{kind}_{name}") for kind in Functions._fields)
            )
            chosen = [pointer, pointer, pointer, number, pointer]
            own.convolve.argtypes = [pointer, *chosen, pointer, pointer, number, number]
            own.depthwise.argtypes = own.convolve.argtypes
            own.linear.argtypes = [pointer] * 5 + [number] * 2
            own.pool.argtypes = pool
            own.play.restype = number
            own.play.argtypes = [pointer, number, *[pointer] * 5, number, number, number]
            own.decide.argtypes = [pointer, pointer, number, number, *[pointer] * 3]
            by_type[dtype] = own
    library.decide.argtypes = [pointer, pointer, number, *[pointer] * 3]
    library.clear.argtypes = [pointer, number, number, pointer, pointer, number, number]
    library.settle.argtypes = [pointer, number, pointer, number, number, pointer]
    library.take_plans.argtypes = [pointer, *[number] * 5, pointer]
    library.take_plans.restype = number
    return _Library(by_type, *(getattr(library, name) for name in _Library._fields[1:]))


def _compiled(source: Path, compiler: str) -> Path:
    """Return the shared library of a source, from the user's cache or made now.

    OpenMP's functions are those that PyTorch has loaded, so that both share their threads.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    told = source.read_bytes() + version + " ".join(FLAGS).encode() + _processor().encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runtime-pruning"
    found = cache / f"native-{hashlib.sha256(told).hexdigest()[:16]}.so"
    if found.is_file():
        return found
    with locked(found.with_suffix(".lock")):  # one process compiles, others wait for it
        if found.is_file():
            return found
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            compiled, linked = Path(folder, "native.o"), Path(folder, "native.so")
            for command in (
                [compiler, *FLAGS, "-c", str(source), "-o", str(compiled)],
                [compiler, "-shared", str(compiled), "-o", str(linked)],
            ):
                subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
            linked.replace(found)
    return found


def _processor() -> str:
    """Return what ``-march=native`` goes by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "".join(line for line in lines[:40] if line.startswith(("model name", "flags")))
