"""What decisions amount to, by hand; the environment and the table run them alike."""

from typing import Any

import numpy as np
import pytest

from pruning_envs import CascadeTable, CascadeVectorEnv
from runtime_pruning.cascades import ThresholdChooser, judge, run
from runtime_pruning.cascades.choosing import Ints


class Always:
    """Says the same whatever it sees."""

    macs_per_image = 1

    def __init__(self, action: int) -> None:
        self.action = action

    def actions(self, features_BF: Any, sets_B: Ints) -> Ints:
        return np.full(len(sets_B), self.action)


def test_a_member_that_has_run_is_not_run_again(table: CascadeTable) -> None:
    sets_N, decisions_N = run(table, Always(2))
    assert set(sets_N.tolist()) == {2}
    assert set(decisions_N.tolist()) == {2}  # the second one stops
    assert judge(table, Always(2)).cost == pytest.approx(1)


def test_a_stop_at_once_is_a_guess(table: CascadeTable) -> None:
    outcome = judge(table, Always(0))
    assert (outcome.cost, outcome.accuracy) == (0, 0.5)  # the first of equals


def test_outcomes_by_hand(table: CascadeTable) -> None:
    outcome = judge(table, ThresholdChooser((0, 1), (0.7,)))
    assert outcome.sets_N[:4].tolist() == [1, 1, 3, 3]
    assert outcome.costs_N[:4].tolist() == [0.25, 0.25, 1.25, 1.25]
    assert (outcome.accuracy, outcome.cost) == (1, 0.75)
    assert outcome.decisions_N[:4].tolist() == [2, 2, 2, 2]  # all have run: nothing to decide


def test_the_environment_does_the_same(table: CascadeTable) -> None:
    chooser = ThresholdChooser((0, 1), (0.7,))
    expected = judge(table, chooser)
    env = CascadeVectorEnv(table=table, penalty=0.2, num_envs=200, seed=0)
    observation, info = env.reset()
    image_B, sets_B, cost_B = info["image"], np.zeros(200, np.int64), np.zeros(200)
    open_B = np.ones(200, np.bool_)
    while open_B.any():
        actions_B = chooser.actions(observation[:, :-1], sets_B)
        observation, _, over_B, _, info = env.step(actions_B)
        cost_B += info["cost"] * open_B
        sets_B = np.where(open_B & over_B, info["members"], sets_B)
        sets_B = np.where(open_B & ~over_B, sets_B | 1 << np.maximum(actions_B - 1, 0), sets_B)
        open_B &= ~over_B
    assert cost_B.tolist() == expected.costs_N[image_B].tolist()
    assert sets_B.tolist() == expected.sets_N[image_B].tolist()
