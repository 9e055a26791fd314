"""The strongest fixed widths: found within the budget, on the policy split alone."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.static_search import (
    FixedPlan,
    SearchBounds,
    best_fixed_plans,
    best_mixture,
    calibrated_for,
)
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy


def plan(groups: int, macs: int, accuracy: float) -> FixedPlan:
    return FixedPlan(
        groups=(groups,), calibrated=False, macs=macs, accuracy=accuracy, loss=1 - accuracy
    )


def bounds(**changes: Any) -> SearchBounds:
    usual = {"evaluations": 24, "images": 250, "calibration_batches": 0, "seed": 0}
    return SearchBounds(**{**usual, **changes})


def test_the_mixture_is_the_chord_that_is_highest_at_the_budget() -> None:
    cheap, middle, dear = plan(1, 10, 0.5), plan(2, 20, 0.55), plan(4, 40, 0.9)
    # At 25: middle and dear give 0.55 + 0.35 / 4 = 0.6375, cheap and dear 0.5 + 0.4 / 2 = 0.7.
    assert best_mixture([middle, dear, cheap], 25) == (cheap, dear)
    assert best_mixture([middle, dear, cheap], 40) == (dear,)
    assert best_mixture([cheap, middle], 15) == (cheap, middle)
    # A dearer plan that is no better is not mixed in.
    assert best_mixture([cheap, plan(3, 30, 0.4)], 15) == (cheap,)


@pytest.fixture(scope="module")
def untrained() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    return trace(backbone, (1, 8, 8), groups=4, align=4).eval()


def searched(
    network: PrunableNetwork,
    budget: float,
    start: Sequence[float],
    own: tuple[int, ...] | None = None,
    **changes: Any,
) -> tuple[FixedPlan, ...]:
    data = datasets.load("digits")
    return best_fixed_plans(
        network,
        training=data.training,
        policy_split=data.policy,
        budget=budget,
        mean_groups=start,
        bounds=bounds(**changes),
        own=own,
    )


def test_what_is_found_is_within_the_budget_and_no_worse_than_where_it_started(
    untrained: PrunableNetwork,
) -> None:
    data = datasets.load("digits")
    few = searched(untrained, 90_000, (2.4, 2.4, 2.4), evaluations=0)
    found = searched(untrained, 90_000, (2.4, 2.4, 2.4), evaluations=30)
    for mix in (few, found):
        assert mix[0].macs <= 90_000
        assert len(mix) == 1 or mix[1].macs > 90_000

    def at_budget(mix: tuple[FixedPlan, ...]) -> float:
        low, high = mix[0], mix[-1]
        share = (90_000 - low.macs) / (high.macs - low.macs) if len(mix) == 2 else 0
        return low.accuracy + share * (high.accuracy - low.accuracy)

    assert at_budget(found) >= at_budget(few)
    facts = judge(untrained, FixedPolicy(found[0].groups), data.policy)
    assert found[0].accuracy == (facts.predictions_B == data.policy.labels_N).mean()
    assert found[0].macs == facts.executed_macs_B[0]


def test_the_search_finds_the_site_that_matters(puzzle: ModuleType) -> None:
    network, data = puzzle.network(), puzzle.data(40)
    budget = (puzzle.MACS[1] + puzzle.MACS[2]) / 2
    found = best_fixed_plans(
        network,
        training=data.training,
        policy_split=data.policy,
        budget=budget,
        mean_groups=[1.5],
        bounds=bounds(),
    )
    assert [(each.groups, each.macs, each.accuracy) for each in found] == [
        ((1,), puzzle.MACS[1], 0.75),
        ((2,), puzzle.MACS[2], 1.0),
    ]


def test_the_policys_own_plan_is_returned_as_it_was(untrained: PrunableNetwork) -> None:
    data = datasets.load("digits")
    *_, own = searched(
        untrained, 90_000, (2, 2, 2), evaluations=0, calibration_batches=1, own=(2, 3, 1)
    )
    facts = judge(untrained, FixedPolicy((2, 3, 1)), data.policy)
    assert (own.groups, own.calibrated) == ((2, 3, 1), False)
    assert own.accuracy == (facts.predictions_B == data.policy.labels_N).mean()


def test_what_a_few_images_chose_is_judged_on_all(untrained: PrunableNetwork) -> None:
    data = datasets.load("digits")
    for plan in searched(untrained, 90_000, (2.4, 2.4, 2.4), images=20):
        facts = judge(untrained, FixedPolicy(plan.groups), data.policy)
        assert plan.accuracy == (facts.predictions_B == data.policy.labels_N).mean()


def test_statistics_are_retaken_for_a_plan_and_kept_off_the_policys_network(
    untrained: PrunableNetwork,
) -> None:
    data = datasets.load("digits")
    before = {name: value.clone() for name, value in untrained.state_dict().items()}
    (found, *_) = searched(untrained, 1e9, (4, 4, 4), evaluations=0, calibration_batches=2)
    assert found.macs <= 1e9
    assert all(torch.equal(before[name], value) for name, value in untrained.state_dict().items())
    own = calibrated_for(untrained, found, data.training, 2)
    facts = judge(own, FixedPolicy(found.groups), data.policy)
    assert (facts.predictions_B == data.policy.labels_N).mean() == found.accuracy
