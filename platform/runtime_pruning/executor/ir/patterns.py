"""Operations that calls of our own know: how they are recognised, and what they mean in PyTorch.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network.graph import FxCall

_FLATTENS: frozenset[Any] = frozenset({torch.flatten, "flatten"})


@dataclass(frozen=True, eq=False)
class Scaling:
    """The normalisation of images: each channel less one constant, divided by another.

    Attributes:
        mean: shape (C, 1, 1).
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return the images, scaled."""
        return (images_BCHW - self.mean) / self.std

    def fits(self, channels: int) -> bool:
        """Whether a native call can scale images of so many channels."""
        return all(
            part.dtype == torch.float32 and part.is_cpu and part.numel() == channels
            for part in (self.mean, self.std)
        )


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Max pooling.

    Attributes:
        module: undilated, and fitting its input by leaving pixels out.
    """

    module: nn.MaxPool2d

    @staticmethod
    def knows(module: nn.Module) -> bool:
        """Whether a module is a max pooling of this kind."""
        if type(module) is not nn.MaxPool2d:
            return False
        plain = not module.return_indices and not module.ceil_mode
        return plain and pair(module.dilation) == (1, 1)

    def __call__(self, features_BCHW: Tensor) -> Tensor:
        """Return the largest of each window."""
        pooled: Tensor = self.module(features_BCHW)
        return pooled


@dataclass(frozen=True, eq=False)
class GlobalPool:
    """The mean over all pixels, as vectors."""

    @staticmethod
    def knows(steps: Sequence[FxCall], module: Callable[[str], nn.Module]) -> bool:
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

    def __call__(self, features_BCHW: Tensor) -> Tensor:
        """Return ``mean_BC``."""
        return functional.adaptive_avg_pool2d(features_BCHW, 1).flatten(1)


Pool: TypeAlias = MaxPool | GlobalPool


def pooling_first(
    followers: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[list[Pool], list[Callable[[Tensor], Tensor]]]:
    """Return the poolings of this kind that come first after a layer, and the rest."""
    pools = list(takewhile(lambda follower: isinstance(follower, Pool), followers))
    return cast(list[Pool], pools), list(followers[len(pools) :])


def only_pools(followers: Sequence[Callable[[Tensor], Tensor]]) -> bool:
    """Whether nothing follows a layer but such poolings."""
    return not pooling_first(followers)[1]


def zeros_around(step: FxCall) -> tuple[int, ...]:
    """Return how many zeros a step pads with, from the last axis on; empty if it is another."""
    if step.target is not functional.pad or len(step.args) != 2 or not any(step.args[1]):
        return ()
    told = dict(step.kwargs)
    plain = told.pop("mode", "constant") == "constant" and not told.pop("value", None) and not told
    return tuple(step.args[1]) if plain else ()


def subsampling_stride(index: Any) -> tuple[int, int] | None:
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


def pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    """Return a size for rows and columns."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
