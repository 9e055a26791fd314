"""A network whose best plan is known: the yardstick for agents that should find it.

Each image is of one class, which shows in the features before the first site and, unless the
oracle keeps it secret, before every site. Each class needs so many groups at each site; every
missing group costs the same amount of cross-entropy, extra groups cost nothing but their price.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes.
"""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_envs.protocols import ExecutionMode


class OracleNetwork(nn.Module):
    """Fulfils `StagedNetwork`; its images are the class in the first pixel's value.

    Args:
        needed_KL: groups that class k needs at site l, int64 in [1, groups].
        groups: groups per site.
        loss_per_group: cross-entropy that each missing group adds.
        remind: whether features show the class before every site, or only before the first:
            then the agent has to remember.
    """

    needed_KL: Tensor

    def __init__(
        self, needed_KL: Tensor, *, groups: int, loss_per_group: float = 1.0, remind: bool = True
    ) -> None:
        super().__init__()
        if needed_KL.min() < 1 or needed_KL.max() > groups:
            raise ValueError(f"`needed_KL` must lie in [1, {groups}], but got {needed_KL}.")
        self.register_buffer("needed_KL", needed_KL.clone())
        self.groups = groups
        self.loss_per_group = loss_per_group
        self.remind = remind
        self.num_classes, self.num_sites = needed_KL.shape
        self.feature_widths = (self.num_classes,) * self.num_sites

    def start(self, images_BCHW: Tensor, *, mode: ExecutionMode = "masked") -> "OracleRun":
        """Read the class off the first pixel."""
        class_B = (images_BCHW[:, 0, 0, 0] * 255).round().long()
        return OracleRun(self, class_B)

    def best_return(self, label: int, *, penalty: float, alpha: float) -> float:
        """Return the greatest return that any plan earns on a class, under the paper's cost."""
        plans = itertools.product(range(1, self.groups + 1), repeat=self.num_sites)
        return max(self._plan_return(label, plan, penalty, alpha) for plan in plans)

    def _plan_return(
        self, label: int, plan: tuple[int, ...], penalty: float, alpha: float
    ) -> float:
        """Return what one plan earns on a class."""
        missing = (self.needed_KL[label] - torch.tensor(plan)).clamp(min=0).sum().item()
        return -penalty * (sum(plan) - len(plan)) - alpha * self.loss_per_group * missing


class OracleRun:
    """Fulfils `StagedRun` for an `OracleNetwork`."""

    def __init__(self, network: OracleNetwork, class_B: Tensor) -> None:
        self._network = network
        self._class_B = class_B
        self._missing_B = torch.zeros_like(class_B)
        self.site = 0
        self.executed_macs_B = torch.zeros_like(class_B)

    @property
    def finished(self) -> bool:
        """Whether the last site has been decided."""
        return self.site == self._network.num_sites

    @property
    def features_BF(self) -> Tensor:
        """The class, one-hot, or zeros where it is kept secret."""
        shown_BF = nn.functional.one_hot(self._class_B, self._network.num_classes).float()
        return shown_BF if self.site == 0 or self._network.remind else torch.zeros_like(shown_BF)

    @property
    def logits_BK(self) -> Tensor:
        """Scores whose cross-entropy is ``loss_per_group`` per missing group."""
        loss_B = self._network.loss_per_group * self._missing_B.double()
        right_BK = nn.functional.one_hot(self._class_B, self._network.num_classes).bool()
        others = self._network.num_classes - 1
        # -log p = loss  <=>  p = exp(-loss), the rest shared evenly by the other classes.
        other_B = torch.log((-torch.expm1(-loss_B)).clamp(min=1e-12) / others)
        return torch.where(right_BK, -loss_B[:, None], other_B[:, None])

    def advance(self, groups_B: Tensor) -> None:
        """Note how many groups are missing; one group is one MAC."""
        needed_B = self._network.needed_KL[self._class_B, self.site]
        self._missing_B = self._missing_B + (needed_B - groups_B).clamp(min=0)
        self.executed_macs_B = self.executed_macs_B + groups_B
        self.site += 1


def oracle_images(classes: int, copies: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return ``images_NCHW`` (N = classes * copies, 1x1 pixel) and ``labels_N`` for an oracle."""
    labels_N = np.tile(np.arange(classes, dtype=np.int64), copies)
    return labels_N.astype(np.uint8).reshape(-1, 1, 1, 1), labels_N
