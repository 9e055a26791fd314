"""The little that the environments need of images, and of a network.

The network runs stage by stage (`StagedNetwork`), or is pruned layer by layer (`LayerwiseNetwork`).

Dimensions: N images in all, B images of a batch, C channels, H W pixels, L sites, S sites decided
so far, T layers, F features, K classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ExecutionMode = Literal["masked", "sliced"]
# What the answer costs: the paper's cross-entropy, or one minus the probability of the right class.
AnswerLoss = Literal["cross-entropy", "error"]


class Images(Protocol):
    """Images of shape (N, C, H, W), uint8: an array, or what reads them when it is indexed."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a pixel."""

    @property
    def ndim(self) -> int:
        """Four."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Return ``images_BCHW``."""


class StagedRun(Protocol):
    """A batch of images standing before one site of a network, until the run is finished."""

    @property
    def site(self) -> int:
        """Index of the site that awaits a decision; the number of sites when finished."""

    @property
    def finished(self) -> bool:
        """Whether the last site has been decided and the logits are there."""

    @property
    def features_BF(self) -> Tensor:
        """Spatial means of the site's input; channels that did not run are zero."""

    @property
    def logits_BK(self) -> Tensor:
        """Class scores; only once finished."""

    @property
    def executed_macs_B(self) -> Tensor:
        """Multiply-accumulates counted so far, int64."""

    def advance(self, groups_B: Tensor) -> None:
        """Run the site with the given number of groups per image and go on to the next site."""


class StagedNetwork(Protocol):
    """A CNN whose sites run one after the other; a ``torch.nn.Module`` with `start`."""

    @property
    def groups(self) -> int:
        """Channel groups per site."""

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Width F of the features before each of the L sites."""

    def start(self, images_BCHW: Tensor, *, mode: ExecutionMode) -> StagedRun:
        """Run everything before the first site on float32 images in [0, 1]."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Take other weights, strictly."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the weights by name."""

    def eval(self) -> Any:
        """Switch to inference behaviour."""

    def to(self, device: str, /) -> Any:
        """Move to a device."""


def answer_loss(logits_BK: Tensor, labels_B: Tensor, kind: AnswerLoss) -> Tensor:
    """Return ``loss_B``, float32, of answers; the expected error is bounded, cross-entropy is not.

    Raises:
        ValueError: no such loss.
    """
    if kind not in get_args(AnswerLoss):
        raise ValueError(f"`answer_loss` must be one of {get_args(AnswerLoss)}, but got {kind!r}.")
    loss_B = functional.cross_entropy(logits_BK.float(), labels_B, reduction="none")
    return -torch.expm1(-loss_B) if kind == "error" else loss_B


class StepCost(Protocol):
    """What one decision costs."""

    def __call__(self, site: int, groups_BS: Tensor, /) -> Tensor:
        """Return ``cost_B``, float, at least 0.

        Args:
            site: the site that was decided last.
            groups_BS: all decisions so far, int64 in [1, groups]; S is ``site + 1``.
        """


class GroupCost:
    """The paper's cost: groups beyond the first, whatever they compute (Lin et al. 2017, eq. 3)."""

    def __call__(self, site: int, groups_BS: Tensor, /) -> Tensor:
        """Return ``groups - 1`` of the last decision, float32."""
        return (groups_BS[:, site] - 1).float()


@runtime_checkable
class LayerwiseNetwork(Protocol):
    """A network of which a share is removed layer by layer; what is left is judged as a whole."""

    @property
    def layers_TF(self) -> NDArray[np.float64]:
        """What is known of each of the T layers, F numbers, none of them negative."""

    def prune(self, removed_T: NDArray[np.float64], /) -> Any:
        """Return the network without these shares of its layers, each in [0, 1].

        Equal shares give equal networks; the original is not changed.
        """

    def accuracy(self, pruned: Any, /, *, finetune_steps: int, seed: int) -> float:
        """Return the share of right answers, in [0, 1].

        Args:
            pruned: what `prune` returned; it may be changed.
            finetune_steps: gradient steps that it learns for first.
            seed: of all that is random in it: equal seeds give equal answers.
        """


# What a whole pruned network costs, above 0: any function that can be evaluated.
NetworkCost = Callable[[Any], float]
