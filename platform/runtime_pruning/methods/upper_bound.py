"""How good any policy could be on these weights: plans found by search with the label known.

For each image, the cheapest plan found that classifies it rightly; where none does, the cheapest
plan of all. The bound is one of search: a longer search may find cheaper plans still. Nothing
is charged for choosing.

Dimensions: N images, L sites.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from runtime_pruning.datasets import HeldOutSplit
from runtime_pruning.methods.controls import Groups
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import PlanPolicy


def cheapest_right_plans(
    network: PrunableNetwork,
    split: HeldOutSplit,
    groups_NL: Groups,
    *,
    random_plans: int = 16,
    refinements: int = 24,
    seed: int = 0,
) -> Groups:
    """Return the cheapest plan found for each image that gets it right.

    Args:
        network: with the statistics that the policy runs on.
        split: the images, with their labels.
        groups_NL: the policy's own plans, which are candidates, too.
        random_plans: how many random plans each image is tried on, beside the uniform ones.
        refinements: how often a site, drawn at random, is given a group less where the image
            stays right.
        seed: of the random plans and of the sites.
    """
    rng = np.random.default_rng(seed)
    best = _Best(network, split)
    for plans_NL in _candidates(network, groups_NL, random_plans, rng):
        best.offer(plans_NL)
    for _ in range(refinements):
        sites_N = rng.integers(groups_NL.shape[1], size=len(split))
        best.narrow(sites_N)
    return best.groups_NL


def _candidates(
    network: PrunableNetwork, groups_NL: Groups, random_plans: int, rng: np.random.Generator
) -> Iterator[Groups]:
    """Yield the policy's plans, the uniform ones, and random ones."""
    yield groups_NL
    for groups in range(1, network.groups + 1):
        yield np.tile(network.uniform(groups), (len(groups_NL), 1))
    for _ in range(random_plans):
        yield rng.integers(1, network.groups + 1, size=groups_NL.shape)


class _Best:
    """The cheapest right plan of each image so far."""

    def __init__(self, network: PrunableNetwork, split: HeldOutSplit) -> None:
        self._network = network
        self._split = split
        self.groups_NL = np.ones((len(split), len(network.sites)), dtype=np.int64)
        self._macs_N = np.full(len(split), np.inf)

    def offer(self, plans_NL: Groups) -> None:
        """Take a plan where it is right and cheaper than what is known."""
        policy = PlanPolicy(torch.from_numpy(plans_NL))
        facts = judge(self._network, policy, self._split)
        right_N = facts.predictions_B == self._split.labels_N
        better_N = right_N & (facts.executed_macs_B < self._macs_N)
        self.groups_NL[better_N] = plans_NL[better_N]
        self._macs_N[better_N] = facts.executed_macs_B[better_N]

    def narrow(self, sites_N: npt.NDArray[np.int64]) -> None:
        """Offer each image its plan with a group less at one site."""
        rows_N = np.arange(len(sites_N))
        plans_NL = self.groups_NL.copy()
        plans_NL[rows_N, sites_N] = np.maximum(plans_NL[rows_N, sites_N] - 1, 1)
        self.offer(plans_NL)
