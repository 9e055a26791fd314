"""What came of running a plan on a batch.

Dimensions: B images, L sites, K classes.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Numbers of a batch, as whoever counted them had them.
IntArrayLike: TypeAlias = Sequence[Any] | ctypes.Array[Any] | npt.NDArray[Any] | Tensor


def _tensor(told: IntArrayLike) -> Tensor:
    """Return the numbers, int64."""
    if isinstance(told, Tensor):
        return told
    return torch.from_numpy(np.asarray(told, dtype=np.int64))


class Answered(Protocol):
    """What is recorded of a batch, whatever ran: a network under a policy, or a cascade of them."""

    @property
    def logits_BK(self) -> Tensor:
        """Class scores."""

    @property
    def channels_BL(self) -> Tensor:
        """Channels that ran at each site, int64; 0 where a network did not run."""

    @property
    def total_macs_B(self) -> Tensor:
        """Executed MACs, those of whatever decided included, int64."""


@dataclass  # to freeze it takes a microsecond, of the 75 that a small network takes
class Execution:
    """What came of running a plan on a batch. Tensors are made when they are asked for.

    Attributes:
        logits_BK: class scores.
        plans: group counts (B, L).
        macs: MACs of the backbone per image, counted where its layers were called. A masked run
            executes the dense network.
        policy_macs: MACs per image of whatever chose the plan.
        bounds_LG: channels by group count, from none on, at each site, int64.
        mode: how it ran: ``"sliced"`` or ``"masked"``, or a mode of a deployed network. All but
            ``"masked"`` and ``"dense"`` execute what the plan says, and no more.
    """

    logits_BK: Tensor
    plans: IntArrayLike
    macs: IntArrayLike
    policy_macs: int
    bounds_LG: Tensor
    mode: str

    @cached_property
    def groups_BL(self) -> Tensor:
        """The plan, int64."""
        return _tensor(self.plans)

    @property
    def channels_BL(self) -> Tensor:
        """Channels that the plan ran at each site, int64."""
        return self.bounds_LG.T.gather(0, self.groups_BL.cpu())

    @cached_property
    def executed_macs_B(self) -> Tensor:
        """MACs of the backbone, int64."""
        return _tensor(self.macs)

    @property
    def policy_macs_B(self) -> Tensor:
        """MACs of whatever chose the plan, int64."""
        return torch.full_like(self.executed_macs_B, self.policy_macs)

    @property
    def total_macs_B(self) -> Tensor:
        """Executed MACs of backbone and policy, int64."""
        return self.executed_macs_B + self.policy_macs
