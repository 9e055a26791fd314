"""Subsets that a policy is held against: its own, dealt to other images, or one for all images.

A policy whose images do as well with the channels of others has decided nothing. One that does no
better than the channels which are salient in the mean is a static network.

Dimensions: N images, B images of a batch, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.datasets import Split
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods.evaluation import batches
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.manifold import threshold_at
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import SubsetRun


class GivenSaliencies(SubsetPolicy):
    """Saliencies that are given, one row per image, in the order of the images.

    Its branches cost what the policy's do, so that costs stay comparable.

    Args:
        policy: whose branches and thresholds it has.
        saliencies: ``saliency_NC`` of each site.
        name: for reports.
    """

    def __init__(self, policy: SubsetPolicy, saliencies: Sequence[Tensor], name: str) -> None:
        super().__init__([policy.branch(site) for site in range(len(policy.branches))], name)
        self.thresholds_L.copy_(policy.thresholds_L)
        self._saliencies = list(saliencies)
        self._next = 0

    def saliency(self, site: int, features_BF: Tensor) -> Tensor:
        """Return the next rows; after the last site the images behind them are next.

        Raises:
            ConfigError: fewer are left than there are images.
        """
        rows_BC = self._saliencies[site][self._next : self._next + len(features_BF)]
        if len(rows_BC) < len(features_BF):
            raise ConfigError(
                f"Saliencies of {len(features_BF)} more images are needed, but {len(rows_BC)} of "
                f"{len(self._saliencies[site])} are left."
            )
        if site == len(self._saliencies) - 1:
            self._next = (self._next + len(rows_BC)) % len(self._saliencies[site])
        return rows_BC.to(features_BF.device)


@torch.inference_mode()
def saliencies_of(
    network: PrunableNetwork, policy: SubsetPolicy, split: Split, *, batch_size: int = 256
) -> list[Tensor]:
    """Return ``saliency_NC`` of each site, for a split's images in order.

    Args:
        network: is put into evaluation mode.
        policy: whose saliencies.
        split: the images.
        batch_size: images per batch.
    """
    network.eval()
    device = next(network.parameters()).device
    parts = [
        SubsetRun(network, images_BCHW, policy, "masked").finish().saliencies
        for images_BCHW, _ in batches(split, batch_size, device)
    ]
    return [torch.cat(rows).clone() for rows in zip(*parts, strict=True)]


def dealt(policy: SubsetPolicy, saliencies: Sequence[Tensor], *, seed: int) -> GivenSaliencies:
    """Return a control in which each image has the saliencies of another, of all sites together."""
    order_N = torch.from_numpy(np.random.default_rng(seed).permutation(len(saliencies[0])))
    rows = [saliency_NC[order_N] for saliency_NC in saliencies]
    return GivenSaliencies(policy, rows, f"{policy.name}, dealt to other images")


def alike(policy: SubsetPolicy, saliencies: Sequence[Tensor]) -> GivenSaliencies:
    """Return a control in which all images have the channels that are salient in the mean.

    A site runs as many as the policy does there in the mean, rounded, of the mean saliencies.
    """
    means = [saliency_NC.mean(0) for saliency_NC in saliencies]
    control = GivenSaliencies(
        policy,
        [mean_C.expand(len(saliencies[0]), -1) for mean_C in means],
        f"{policy.name}, alike for all images",
    )
    for site, (mean_C, saliency_NC) in enumerate(zip(means, saliencies, strict=True)):
        count = float(policy.kept(site, saliency_NC).sum(1).double().mean())
        control.thresholds_L[site] = threshold_at(mean_C, round(count) / len(mean_C))
    return control
