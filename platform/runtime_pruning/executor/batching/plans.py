"""What decides a batch, and what comes of it.

Dimensions: B images, L sites, F features, K classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.native import library
from runtime_pruning.executor.native.abi import Counts, Decisions
from runtime_pruning.network.execution import IntArrayLike
from runtime_pruning.network.policies import Chooser

Plan = tuple[int, ...]


class Outcome(NamedTuple):
    """What came of a batch.

    Attributes:
        logits_BK: class scores.
        plans: group counts (B, L).
        macs: of the backbone, per image.
    """

    logits_BK: Tensor
    plans: IntArrayLike
    macs: IntArrayLike

    @classmethod
    def alike(cls, logits_BK: Tensor, plan: Plan, macs: int) -> "Outcome":
        """Return the outcome of images that share a plan."""
        size = logits_BK.shape[0]
        return cls(logits_BK, [plan] * size, [macs] * size)


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Return outcomes of parts of a batch, in order, as one."""
    parts = list(outcomes)
    if len(parts) == 1:
        return parts[0]
    return Outcome(
        torch.cat([part.logits_BK for part in parts]),
        np.concatenate([np.asarray(part.plans) for part in parts]),
        np.concatenate([np.asarray(part.macs) for part in parts]),
    )


class Decider(Protocol):
    """Decides a site for the whole batch; features are made only where they are looked at."""

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return the group count of each image."""
        ...


class PlanDecider:
    """Plans that are known beforehand.

    Before a pass the caches hold little of Python: each call of numpy or PyTorch takes 10 to 60
    microseconds, as much as some layers take. So plans are read once, those of several images by a
    compiled call.

    Args:
        groups_BL: int64, on the CPU; copied.
        most: the largest count.

    Attributes:
        size: images.
        counts: group counts (B, L), if a compiled call read them.
        alike: whether all images have the same plan.

    Raises:
        ConfigError: no images, or a count out of range.
    """

    def __init__(self, groups_BL: Tensor, most: int) -> None:
        self._groups_BL, self._most = groups_BL, most
        self.size, sites = groups_BL.shape
        taken = library.take_plans(groups_BL, most) if self.size > 1 else None
        self.counts: Counts | None = None
        if taken is None:
            self.rows = rows = list(map(tuple, groups_BL.tolist()))
            fit = rows != [] and min(map(min, rows)) >= 1 and max(map(max, rows)) <= most
            self.alike = rows[1:] == rows[:-1]
        else:
            self.counts, fit, self.alike = taken
        if not fit:
            wrong = [plan for plan in self.rows if min(plan) < 1 or max(plan) > most]
            raise ConfigError(
                f"Plans of {sites} counts in [1, {most}] are needed, but got {(*wrong, ())[0]}."
            )

    @cached_property
    def rows(self) -> list[Plan]:
        """The plan of each image."""
        return list(map(tuple, self.counts or ()))

    @property
    def first(self) -> Plan:
        """The plan of the first image."""
        return self.rows[0] if self.counts is None else tuple(self.counts[0])

    def part(self, first: int, last: int, sites: int) -> "PlanDecider":
        """Return the plans of images ``[first, last)``, for so many first sites."""
        return PlanDecider(self._groups_BL[first:last, :sites], self._most)

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return the site's column."""
        return [row[site] for row in self.rows]


@dataclass(frozen=True)
class PolicyDecider:
    """Asks a chooser, and checks what it says.

    Attributes:
        chooser: of as many images as the batch has.
        size: images in the batch.
        groups: largest count.
    """

    chooser: Chooser
    size: int
    groups: int

    @property
    def decide_from_map(self) -> Callable[[int, Tensor], int | None] | None:
        """Return None where features have to be pooled for the chooser."""
        return getattr(self.chooser, "choose_from", None)

    @property
    def compiled(self) -> Decisions | None:
        """Return what makes the decisions between compiled calls, if the chooser has that."""
        return getattr(self.chooser, "compiled", None)

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return what the chooser says.

        Raises:
            ConfigError: not one count per image, or a count out of range.
        """
        counts: list[int] = self.chooser.choose(site, features()).tolist()
        if len(counts) != self.size or min(counts) < 1 or max(counts) > self.groups:
            raise ConfigError(
                f"{self.size} counts in [1, {self.groups}] are needed at site {site}, "
                f"but got {counts}."
            )
        return counts
