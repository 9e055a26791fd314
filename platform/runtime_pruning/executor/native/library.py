"""Our own calls for CPUs, compiled from ``src/program.cpp`` once per machine.

oneDNN spends 20 to 100 microseconds on a call however small it is, and knows one width per call.
These cost two to four, and let each image of a batch have widths of its own. They need an x86 CPU
and a C++ compiler (the one that `torch.compile` needs). Without them a process says so once, and
nothing here is used; ``RUNTIME_PRUNING_NATIVE`` (`build.SETTINGS`) makes that an error, or wanted.

Dimensions: B images, C and D channels, H W pixels, F features.
"""

import ctypes
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runtime_pruning.errors import NativeError
from runtime_pruning.executor.native import abi, build
from runtime_pruning.executor.native.abi import Counts, Numbers

_WITHOUT = (
    "Compiled kernels are not used: {reason}\nDeployed networks run by PyTorch's calls in their "
    "place: narrow layers, decisions and batches of unlike plans are slower, and there is no mode "
    "`ragged`. `{setting}=off` says that this is as it should be, `{setting}=require` that it is "
    "an error."
)


class Functions(NamedTuple):
    """The entry points for one type of element.

    Attributes:
        convolve: see ``convolve`` in the source.
        depthwise: likewise, of the same arguments.
        linear: see ``linear_float32`` in the source.
        pool: see ``pool`` in the source.
        run: see ``run`` in the source.
        decide: see ``decide_float32`` in the source.
    """

    convolve: Callable[..., None]
    depthwise: Callable[..., None]
    linear: Callable[..., None]
    pool: Callable[..., None]
    run: Callable[..., int]
    decide: Callable[..., None]


class _Library(NamedTuple):
    """The compiled source."""

    by_type: dict[torch.dtype, Functions]
    decide: Callable[..., None]
    clear: Callable[..., None]
    settle: Callable[..., None]
    take_plans: Callable[..., int]
    set_poisoned: Callable[..., None]


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


def set_poisoned(on: bool) -> None:
    """Have memory that nobody wrote hold NaN, or not; see `poison`."""
    library = _library()
    if library is not None:
        library.set_poisoned(on)


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


def description() -> str:
    """Return whose kernels a network runs by: ours and for which CPU, or PyTorch's and why."""
    return _found()[1]


def forget() -> None:
    """Have the next call look for the library again, as a new process does."""
    _library.cache_clear()
    _found.cache_clear()


@functools.cache
def _library() -> _Library | None:
    """Return the compiled source; None where it cannot be had or is not wanted."""
    return _found()[0]


@functools.cache
def _found() -> tuple[_Library | None, str]:
    """Return the compiled source, if it can be had and is wanted, and its description.

    Raises:
        ConfigError: the environment's setting is none.
        NativeError: it is required, and cannot be had.
    """
    setting = build.setting()
    if setting == "off":
        return None, f"PyTorch ({build.SETTING}=off)"
    try:
        target = build.target()
        path = build.compiled_library(build.SOURCE, build.compiler(), target)
        return _loaded(path), f"native {target.name}"
    except NativeError as error:
        if setting == "require":
            raise
        warnings.warn(_WITHOUT.format(setting=build.SETTING, reason=error), stacklevel=2)
        return None, f"PyTorch ({error.short})"


def _loaded(path: Path) -> _Library:
    """Return a compiled library with its functions and their types.

    Raises:
        NativeError: it does not load.
        AbiMismatchError: it is of another source.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError("does not load", f"{error}.") from error
    abi.check(_abi(library))
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
            own.convolve.restype = own.depthwise.restype = own.decide.restype = _done
            own.linear.argtypes = [pointer] * 5 + [number] * 2
            own.pool.argtypes = pool
            own.run.restype = number
            own.run.argtypes = [pointer, number, *[pointer] * 5, number, number, number]
            own.decide.argtypes = [pointer, pointer, number, number, *[pointer] * 3]
            by_type[dtype] = own
    library.decide.restype = _done
    library.decide.argtypes = [pointer, pointer, number, *[pointer] * 3]
    library.clear.argtypes = [pointer, number, number, pointer, pointer, number, number]
    library.settle.argtypes = [pointer, number, pointer, number, number, pointer]
    library.take_plans.argtypes = [pointer, *[number] * 5, pointer]
    library.take_plans.restype = number
    library.set_poisoned.argtypes = [number]
    return _Library(by_type, *(getattr(library, name) for name in _Library._fields[1:]))


def _abi(library: ctypes.CDLL) -> Iterator[tuple[str, int, int]]:
    """Yield what a library reports of its structures; see `abi.check`."""
    name, place, size = ctypes.c_char_p(), ctypes.c_int64(), ctypes.c_int64()
    library.abi_row.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 3]
    library.abi_row.restype = ctypes.c_int64
    for row in itertools.count():
        if not library.abi_row(row, *map(ctypes.addressof, (name, place, size))):
            return
        assert name.value is not None
        yield name.value.decode(), place.value, size.value


def _done(status: int) -> None:
    """Refuse a call that found no memory for what lies between its parts."""
    if status:
        raise MemoryError("There is no memory for what a compiled call keeps in between.")
