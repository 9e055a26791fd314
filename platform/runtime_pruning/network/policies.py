"""What chooses a plan: the interface and the policies that look at nothing.

Dimensions: B images, L sites, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError


class Chooser(Protocol):
    """Chooses for one batch, site by site, from the first site to the last."""

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``, int64 in [1, groups], from a site's pooled input."""
        ...


class Policy(Protocol):
    """Chooses plans."""

    @property
    def name(self) -> str:
        """What the policy is, for reports."""
        ...

    @property
    def macs_per_image(self) -> int:
        """What choosing costs, over all sites."""
        ...

    def start(self, batch: int) -> Chooser:
        """Return what chooses for the next ``batch`` images."""
        ...


@runtime_checkable
class Deployable(Policy, Protocol):
    """A policy that has a faster form for deployed networks."""

    def deploy(self) -> Policy:
        """Return a policy that chooses the same, as long as this one does not change."""
        ...


@dataclass(frozen=True)
class PlannedChooser:
    """A plan that is known before the first site: no features need be pooled for it."""

    groups_BL: Tensor

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return the plan's column."""
        return self.groups_BL[:, site]


class FixedPolicy:
    """Every image gets the same plan.

    Args:
        groups_L: groups per site, each at least one.
        name: for reports.
    """

    macs_per_image = 0

    def __init__(self, groups_L: Sequence[int], name: str = "fixed") -> None:
        if not groups_L or min(groups_L) < 1:
            raise ConfigError(f"`groups >= 1` must hold at each site, but got {list(groups_L)}.")
        self.name = name
        self.groups_L = torch.tensor(list(groups_L), dtype=torch.int64)

    def start(self, batch: int) -> PlannedChooser:
        """Return the one plan, for each image."""
        return PlannedChooser(self.groups_L.expand(batch, -1))


class RandomPolicy:
    """Each image and site draws its groups, all counts alike.

    Args:
        groups: largest count.
        num_sites: how many sites a plan has.
        seed: of the draws; batches continue one stream.
    """

    name = "random"
    macs_per_image = 0

    def __init__(self, groups: int, num_sites: int, seed: int) -> None:
        if min(groups, num_sites) < 1:
            raise ConfigError(
                "`groups` and `num_sites` must each be >= 1, "
                f"but got (groups={groups}, num_sites={num_sites})."
            )
        self.groups = groups
        self.num_sites = num_sites
        self._generator = torch.Generator().manual_seed(seed)

    def start(self, batch: int) -> PlannedChooser:
        """Return fresh plans."""
        size = (batch, self.num_sites)
        return PlannedChooser(torch.randint(1, self.groups + 1, size, generator=self._generator))


class PlanPolicy:
    """Plans that are given, one per image, in the order of the images.

    Args:
        groups_BL: a plan per image; each batch takes the next rows, after the last the first again.
        name: for reports.
    """

    macs_per_image = 0

    def __init__(self, groups_BL: Tensor, name: str = "plan") -> None:
        if groups_BL.ndim != 2 or groups_BL.numel() == 0:
            raise ConfigError(
                f"Plans of shape (B, L) are needed, but got {tuple(groups_BL.shape)}."
            )
        self.name = name
        self.groups_BL = groups_BL.to(torch.int64)
        self._next = 0

    def start(self, batch: int) -> PlannedChooser:
        """Return the plans of the next ``batch`` images.

        Raises:
            ConfigError: fewer are left.
        """
        rows_BL = self.groups_BL[self._next : self._next + batch]
        if len(rows_BL) < batch:
            raise ConfigError(
                f"Plans for {batch} more images are needed, but {len(rows_BL)} of "
                f"{len(self.groups_BL)} are left."
            )
        self._next = (self._next + batch) % len(self.groups_BL)
        return PlannedChooser(rows_BL)
