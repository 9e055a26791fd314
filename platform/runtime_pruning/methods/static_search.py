"""The best fixed widths for a budget of MACs: the static control at its strongest.

Plans are judged on the policy split, so that the images that report have chosen nothing. The search
starts from the uniform plans, the policy's mean widths and its commonest plan, climbs by trading a
group of one site for a group of another, and spends its last quarter on plans just above the
budget. The best few of all that was judged, on some images, are judged again on all. Of these it
takes the pair of plans, one on each side of the budget, whose random mixture at the budget is most
accurate: a fixed control need not lie on the grid of MACs.

Batch-norm statistics are taken anew for each plan that is judged; for the plans that are chosen
the policy's own statistics are tried, too, and stay where they serve better. The policy's commonest
plan is returned beside the others, with the policy's statistics: a policy that does not look at the
image gains nothing over itself, however few images chose.

Dimensions: L sites, N plans.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from runtime_pruning.cost.macs import plan_macs
from runtime_pruning.datasets import PolicySplit, TrainingSplit
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import recalibrate_batch_norm

Plan: TypeAlias = tuple[int, ...]
FINALISTS = 6  # mixtures that are judged again on the whole policy split


@dataclass(frozen=True, kw_only=True)
class FixedPlan:
    """A plan that every image gets, as the policy split sees it.

    Attributes:
        groups: per site.
        calibrated: whether batch-norm statistics are taken anew for it.
        macs: per image.
        accuracy: on the policy split.
        loss: mean cross-entropy in nats, there.
    """

    groups: Plan
    calibrated: bool
    macs: int
    accuracy: float
    loss: float

    @property
    def merit(self) -> tuple[float, float]:
        """What plans are compared by: accuracy, then loss."""
        return self.accuracy, -self.loss


@dataclass(frozen=True, kw_only=True)
class SearchBounds:
    """How much a search may do.

    Attributes:
        evaluations: plans that are judged beyond the starting ones.
        images: of the policy split, that judge a plan.
        calibration_batches: of 256 training images, over which batch-norm statistics are taken
            anew for a plan; 0 leaves the policy's.
        seed: of the order in which neighbours are tried.
    """

    evaluations: int
    images: int
    calibration_batches: int
    seed: int


def calibrated_for(
    network: PrunableNetwork, plan: FixedPlan, training: TrainingSplit, batches: int
) -> PrunableNetwork:
    """Return a copy of the network with the batch-norm statistics that a plan is to have."""
    own = copy.deepcopy(network)
    if plan.calibrated:
        recalibrate_batch_norm(own, training, FixedPolicy(plan.groups), batches)
    return own.eval()


def best_fixed_plans(
    network: PrunableNetwork,
    *,
    training: TrainingSplit,
    policy_split: PolicySplit,
    budget: float,
    mean_groups: Sequence[float],
    bounds: SearchBounds,
    own: Plan | None = None,
) -> tuple[FixedPlan, ...]:
    """Return one plan, or the two whose mixture costs ``budget``, cheaper first; then ``own``.

    Args:
        network: as the policy was measured on it; it stays as it is.
        training: for batch-norm statistics only.
        policy_split: judges the plans.
        budget: MACs per image, no less than the cheapest plan's.
        mean_groups: of the policy at each site, where the search starts.
        bounds: how much it may do.
        own: the policy's commonest plan.
    """
    search = _Search(network, training, policy_split, budget, bounds)
    search.start(mean_groups, own)
    search.climb()
    search.look_above()
    search.judge_again()
    best = [search.settle(plan) for plan in best_mixture(list(search.judged), budget)]
    return (*best, *([] if own is None else [search.as_it_was(own)]))


def best_mixture(plans: Sequence[FixedPlan], budget: float) -> tuple[FixedPlan, ...]:
    """Return the plan or the pair that is most accurate at a mean cost of ``budget`` at most."""
    return mixtures(plans, budget)[0]


def mixtures(plans: Sequence[FixedPlan], budget: float) -> list[tuple[FixedPlan, ...]]:
    """Return plans within a budget and pairs that bracket it, the most accurate there first."""
    below = [plan for plan in plans if plan.macs <= budget]
    above = [plan for plan in plans if plan.macs > budget]
    pairs = [(low, high) for low in below for high in above if high.merit > low.merit]
    found = [*((plan,) for plan in below), *pairs]
    return sorted(found, key=lambda mix: _merit_at(mix, budget), reverse=True)


def _merit_at(plans: tuple[FixedPlan, ...], budget: float) -> tuple[float, float]:
    """Return accuracy and negative loss that a mixture is expected to have at the budget."""
    low, high = plans[0], plans[-1]
    dearer = (budget - low.macs) / (high.macs - low.macs) if high.macs > low.macs else 0.0
    accuracy, loss = (
        (1 - dearer) * one + dearer * other
        for one, other in zip(low.merit, high.merit, strict=True)
    )
    return accuracy, loss


class _Search:
    """Plans that were judged so far, and what is left to spend."""

    def __init__(
        self,
        network: PrunableNetwork,
        training: TrainingSplit,
        policy_split: PolicySplit,
        budget: float,
        bounds: SearchBounds,
    ) -> None:
        self._network = network
        self._own = copy.deepcopy(network).eval()
        self._training = training
        self._whole = policy_split
        self._split = policy_split.head(min(len(policy_split), bounds.images))
        self._budget = budget
        self._bounds = bounds
        self._rng = np.random.default_rng(bounds.seed)
        self._plans: dict[Plan, FixedPlan] = {}
        self._left = bounds.evaluations

    @property
    def judged(self) -> Iterator[FixedPlan]:
        """All plans that were judged."""
        return iter(self._plans.values())

    def start(self, mean_groups: Sequence[float], own: Plan | None) -> None:
        """Judge uniform plans, the policy's own, and its mean widths rounded and rounded down."""
        groups = self._network.groups
        for count in range(1, groups + 1):
            self._judge(self._network.uniform(count))
        for rounded in (np.rint(mean_groups), np.floor(mean_groups)):
            self._judge(tuple(int(count) for count in np.clip(rounded, 1, groups)))
        if own is not None:
            self._judge(own)

    def climb(self) -> None:
        """Move to the first better neighbour within the budget, again and again."""
        reserve = self._bounds.evaluations // 4
        here = self._best_affordable()
        while self._left > reserve:
            trial = next(self._neighbours(here.groups), None)
            if trial is None:
                break
            self._left -= 1
            here = max(here, self._judge(trial), key=lambda plan: plan.merit)

    def look_above(self) -> None:
        """Judge plans one group dearer than the best affordable one, those above the budget."""
        here = self._best_affordable()
        steps = [plan for plan in self._dearer(here.groups) if self._macs(plan) > self._budget]
        for plan in self._shuffled(steps)[: self._left]:
            self._judge(plan)
            self._left -= 1

    def judge_again(self) -> None:
        """Judge the best mixtures' plans on the whole policy split, and forget the others."""
        if len(self._split) == len(self._whole):
            return
        finalists = mixtures(list(self.judged), self._budget)[:FINALISTS]
        self._split, self._plans = self._whole, {}
        for plan in dict.fromkeys(plan.groups for mix in finalists for plan in mix):
            self._judge(plan)

    def as_it_was(self, plan: Plan) -> FixedPlan:
        """Return a plan as it does with the policy's own batch-norm statistics."""
        return self._seen(self._network, plan, calibrated=False)

    def settle(self, plan: FixedPlan) -> FixedPlan:
        """Return the plan with the batch-norm statistics that serve it better."""
        if not plan.calibrated:
            return plan
        return max(plan, self.as_it_was(plan.groups), key=lambda each: each.merit)

    def _best_affordable(self) -> FixedPlan:
        affordable = [plan for plan in self.judged if plan.macs <= self._budget]
        return max(affordable, key=lambda plan: plan.merit)

    def _neighbours(self, here: Plan) -> Iterator[Plan]:
        """Yield unseen plans within the budget, a group more or a trade away, in random order."""
        trades = (
            _moved(dearer, site, -1)
            for dearer in self._dearer(here)
            for site, groups in enumerate(here)
            if groups > 1 and dearer[site] == groups
        )
        for plan in self._shuffled([*self._dearer(here), *trades]):
            if plan not in self._plans and self._macs(plan) <= self._budget:
                yield plan

    def _dearer(self, here: Plan) -> list[Plan]:
        """Return the plans with one group more."""
        most = self._network.groups
        return [_moved(here, site, 1) for site, groups in enumerate(here) if groups < most]

    def _shuffled(self, plans: Sequence[Plan]) -> list[Plan]:
        return [plans[i] for i in self._rng.permutation(len(plans))]

    def _judge(self, plan: Plan) -> FixedPlan:
        """Return what the policy split says of a plan, each plan once."""
        if plan not in self._plans:
            batches = self._bounds.calibration_batches
            recalibrate_batch_norm(self._own, self._training, FixedPolicy(plan), batches)
            self._plans[plan] = self._seen(self._own, plan, calibrated=batches > 0)
        return self._plans[plan]

    def _seen(self, network: PrunableNetwork, plan: Plan, *, calibrated: bool) -> FixedPlan:
        """Return a plan as the policy split sees it on a network's present statistics."""
        facts = judge(network, FixedPolicy(plan), self._split)
        return FixedPlan(
            groups=plan,
            calibrated=calibrated,
            macs=int(facts.executed_macs_B[0]),
            accuracy=float((facts.predictions_B == self._split.labels_N).mean()),
            loss=float(facts.losses_B.mean()),
        )

    def _macs(self, plan: Plan) -> int:
        channels_1L = self._network.channels(torch.tensor([plan]))
        return int(plan_macs(self._network, channels_1L)[0])


def _moved(plan: Plan, site: int, step: int) -> Plan:
    """Return a plan with ``step`` more groups at a site."""
    return (*plan[:site], plan[site] + step, *plan[site + 1 :])
