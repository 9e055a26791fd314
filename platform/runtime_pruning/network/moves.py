"""What is done to features between layers, by calls of our own: pooled, copied, padded, scaled.

Dimensions: B images, C channels, H W pixels.
"""

import ctypes
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network import native
from runtime_pruning.network.graph import Ref, Step
from runtime_pruning.network.kernels import NOTHING, own_calls
from runtime_pruning.network.tape import Kind, Record, Tape

Size: TypeAlias = tuple[int, ...]  # (H, W, C)

_FLATTENS: frozenset[Any] = frozenset({torch.flatten, "flatten"})
_LONGEST = 16  # floats in a register


class _Pool:
    """A pooling by our own call where it runs, else by PyTorch's."""

    def __init__(self) -> None:
        self._tapes: dict[tuple[torch.Size, torch.dtype], Tape] = {}

    def __call__(self, features_BCHW: Tensor) -> Tensor:
        """Return the features, pooled."""
        last = features_BCHW.is_contiguous(memory_format=torch.channels_last)
        if own_calls(features_BCHW) is None or features_BCHW.ndim < 4 or not last:
            return self.plain(features_BCHW)
        key = (features_BCHW.shape[1:], features_BCHW.dtype)
        if key not in self._tapes:
            channels, high, wide = features_BCHW.shape[1:]
            record = self.record((high, wide, channels), 0, [channels])
            self._tapes[key] = Tape([record], {0}, features_BCHW.dtype)
        state = [features_BCHW]
        self._tapes[key](state)
        return state[0]

    def plain(self, features_BCHW: Tensor) -> Tensor:
        """Do the same by PyTorch's calls."""
        raise NotImplementedError

    def record(self, size: Size, slot: int, channels: Sequence[int], read: int = -1) -> Record:
        """Return the call for a tape, from a slot to itself.

        Args:
            size: of what is read.
            slot: that holds it, and gets the result.
            channels: that it can have.
            read: see `Record`.
        """
        raise NotImplementedError


class MaxPool(_Pool):
    """Max pooling.

    Args:
        module: undilated, and fitting its input by leaving pixels out.
    """

    def __init__(self, module: nn.MaxPool2d) -> None:
        super().__init__()
        self._module = module
        self._kernel, self._padding = _pair(module.kernel_size), _pair(module.padding)
        self._stride = _pair(module.stride)

    @staticmethod
    def knows(module: nn.Module) -> bool:
        """Whether a module is a max pooling of this kind."""
        if type(module) is not nn.MaxPool2d:
            return False
        plain = not module.return_indices and not module.ceil_mode
        return plain and _pair(module.dilation) == (1, 1)

    def plain(self, features_BCHW: Tensor) -> Tensor:
        """Return the largest of each window."""
        pooled: Tensor = self._module(features_BCHW)
        return pooled

    def record(self, size: Size, slot: int, channels: Sequence[int], read: int = -1) -> Record:
        """Return the call for a tape; see `_Pool.record`."""
        high, wide, room = size
        frame = native.Frame.over((high, wide), self._kernel, self._stride, self._padding)
        rows = _rows((0, count) for count in channels)
        return _move(Kind.MAX_POOL, (slot, slot), frame, (room, room), rows, read=read)


class GlobalPool(_Pool):
    """The mean over all pixels, as vectors."""

    @staticmethod
    def knows(steps: Sequence[Step], module: Callable[[str], nn.Module]) -> bool:
        """Whether steps begin with adaptive average pooling to one pixel, and flattening.

        Args:
            steps: that follow a layer.
            module: finds a module by its path.
        """
        if len(steps) < 2:
            return False
        pool, flatten = steps[:2]
        if pool.op == "module":
            found = module(pool.target)
            single = isinstance(found, nn.AdaptiveAvgPool2d) and found.output_size in (1, (1, 1))
        else:
            single = pool.target is functional.adaptive_avg_pool2d and pool.args in (
                (1,),
                ((1, 1),),
            )
        if flatten.op == "module":
            last = module(flatten.target)
            flat = isinstance(last, nn.Flatten) and (last.start_dim, last.end_dim) == (1, -1)
        else:
            flat = flatten.target in _FLATTENS and flatten.args == (1,) and not flatten.kwargs
        return single and flat and not pool.kwargs

    def plain(self, features_BCHW: Tensor) -> Tensor:
        """Return ``mean_BC``."""
        return functional.adaptive_avg_pool2d(features_BCHW, 1).flatten(1)

    def record(self, size: Size, slot: int, channels: Sequence[int], read: int = -1) -> Record:
        """Return the call for a tape; see `_Pool.record`."""
        high, wide, room = size
        frame, rows = native.Frame.over((high, wide)), _rows((0, count) for count in channels)
        record = _move(Kind.AVERAGE, (slot, slot), frame, (room, room), rows, read=read)
        return record._replace(out=(room,))


def pooling_first(
    followers: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[list[_Pool], list[Callable[[Tensor], Tensor]]]:
    """Return the poolings of this kind that come first after a layer, and the rest."""
    pools = list(takewhile(lambda follower: isinstance(follower, _Pool), followers))
    return cast(list[_Pool], pools), list(followers[len(pools) :])


def only_pools(followers: Sequence[Callable[[Tensor], Tensor]]) -> bool:
    """Whether nothing follows a layer but such poolings."""
    return not pooling_first(followers)[1]


class Scaling:
    """The normalisation of images: each channel less one constant, divided by another.

    Args:
        mean: shape (C, 1, 1).
        std: likewise.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self._mean, self._std = mean, std

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return the images, scaled."""
        return (images_BCHW - self._mean) / self._std

    def fits(self, channels: int) -> bool:
        """Whether a call for a tape can scale images of so many channels."""
        parts = (self._mean, self._std)
        return all(
            part.dtype == torch.float32 and part.is_cpu and part.numel() == channels
            for part in parts
        )

    def record(self, like: Tensor, source: int, target: int) -> Record | None:
        """Return the call for a tape, from float32 to its type; None where it does not fit.

        Images are read in the order that these have: channels last, or plane by plane.
        """
        channels, high, wide = like.shape[1:]
        if not self.fits(channels) or not like.is_cpu or like.dtype != torch.float32:
            return None
        # Where pixels lie side by side: constants for as many as fill whole registers.
        last = like.is_contiguous(memory_format=torch.channels_last)
        kind, period = (Kind.SCALE, _LONGEST) if last else (Kind.SCALE_PLANES, 1)
        mean, std = (part.flatten().repeat(period) for part in (self._mean, self._std))
        rows = _rows([(channels * period, 0)])
        rows[0, :2] = std.data_ptr(), mean.data_ptr()
        frame = native.Frame.over((high, wide))
        record = _move(kind, (source, target), frame, (channels, channels), rows)
        return record._replace(held=(record.held, mean, std))


def copied(size: Size, room: int, source: int, target: int) -> Record:
    """Return a call for a tape that copies features to a place of as many channels or more.

    Channels behind them are set to zero.

    Args:
        size: of the source.
        room: channels of the target.
        source: slot.
        target: likewise.
    """
    return padded(size, (0, room - size[2]), source, target)


def padded(size: Size, pad: tuple[int, int], source: int, target: int) -> Record:
    """Return a call for a tape that copies features and puts channels of zeros around them.

    Args:
        size: of the source.
        pad: channels before and after its own.
        source: slot.
        target: likewise.
    """
    high, wide, channels = size
    frame, rows = native.Frame.over((high, wide)), _rows([(channels, pad[0])])
    return _move(Kind.COPY, (source, target), frame, (channels, channels + sum(pad)), rows)


def subsampled(size: Size, stride: tuple[int, int], source: int, target: int) -> Record:
    """Return a call for a tape that takes every n-th row and column, from the first on."""
    high, wide, channels = size
    frame = native.Frame.over((high, wide), stride=stride)
    return _move(Kind.COPY, (source, target), frame, (channels, channels), _rows([(channels, 0)]))


def cleared(size: Size, slot: int, rows: Sequence[tuple[int, int]], **widths: int) -> Record:
    """Return a call for a tape that sets some channels of each image to zero, in place.

    Args:
        size: of the features.
        slot: that holds them.
        rows: from which channel to which, by width.
        widths: see `Record`.
    """
    high, wide, channels = size
    frame, room = native.Frame.over((high, wide)), (channels, channels)
    record = _move(Kind.CLEAR, (slot, slot), frame, room, _rows(rows), **widths)
    return record._replace(out=None)


def decided(size: Size, slot: int, site: int, channels: Sequence[int], read: int) -> Record:
    """Return a call for a tape that decides a site.

    Args:
        size: of the features that the site reads.
        slot: that holds them.
        site: index.
        channels: that they can have.
        read: see `Record`.
    """
    high, wide, room = size
    frame, rows = native.Frame.over((high, wide)), _rows((0, count) for count in channels)
    record = _move(Kind.DECIDE, (slot, slot), frame, (room, room), rows, read=read, site=site)
    return record._replace(out=None)


def of_step(step: Step, like: Tensor, source: int, target: int) -> Record | None:
    """Return an operation of which only its torch.fx step is known as a call for a tape, or None.

    Args:
        step: the operation.
        like: what it reads, (B, C, H, W), of a type that our own calls know.
        source: slot.
        target: likewise.
    """
    if step.op != "function" or not step.args:
        return None
    first, *args = step.args
    if not isinstance(first, Ref):
        return None
    channels, high, wide = like.shape[1:]
    size = (high, wide, channels)
    if step.target is operator.getitem and len(args) == 1:
        stride = _stride(args[0])
        return None if stride is None else subsampled(size, stride, source, target)
    around = zeros_around(step)
    if len(around) == 6 and not any(around[:4]) and min(around) >= 0:
        return padded(size, (around[4], around[5]), source, target)
    return None


def zeros_around(step: Step) -> tuple[int, ...]:
    """Return how many zeros a step pads with, from the last axis on; empty if it is another."""
    if step.target is not functional.pad or len(step.args) != 2 or not any(step.args[1]):
        return ()
    told = dict(step.kwargs)
    plain = told.pop("mode", "constant") == "constant" and not told.pop("value", None) and not told
    return tuple(step.args[1]) if plain else ()


def _stride(index: Any) -> tuple[int, int] | None:
    """Return the step of an index that takes every n-th row and column, or None."""
    if not isinstance(index, tuple) or len(index) != 4:
        return None
    if not all(isinstance(part, slice) for part in index):
        return None
    if any((part.start, part.stop) != (None, None) for part in index):
        return None
    images, channels, rows, columns = (part.step or 1 for part in index)
    numbers = all(isinstance(step, int) and step > 0 for step in (rows, columns))
    return (rows, columns) if numbers and images == channels == 1 else None


def _rows(widths: Iterable[tuple[int, int]]) -> native.Numbers:
    """Return ``Width`` rows of the source with no weights."""
    return np.array([(0, 0, *row, 0, 0) for row in widths], dtype=np.int64)


def _move(
    kind: Kind,
    slots: tuple[int, int],
    frame: native.Frame,
    room: tuple[int, int],
    rows: native.Numbers,
    **widths: Any,
) -> Record:
    """Return a call from one slot to another, from and to pixels with room for some channels."""
    call = frame.call(*room, NOTHING.limits, add=False)
    addresses = ctypes.addressof(call), rows.ctypes.data
    return Record(kind, *slots, (*frame.out, room[1]), *addresses, **widths, held=(call, rows))


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    """Return a size for rows and columns."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
