"""Targets worked out by hand: sums of rewards, where they bootstrap from, and where they do not."""

import numpy as np
import pytest
import torch

from runtime_pruning.agents.replay import Episodes
from runtime_pruning.agents.targets import bootstrap, summed, train_batch

REWARDS_EL = np.array([[1.0, 2.0, 4.0], [8.0, 0.0, -2.0]], np.float32)


@pytest.mark.parametrize(
    ("n_step", "expected_EL"),
    [
        (1, [[1, 2, 4], [8, 0, -2]]),
        (2, [[1 + 1, 2 + 2, 4], [8 + 0, 0 - 1, -2]]),
        (3, [[1 + 1 + 1, 2 + 2, 4], [8 + 0 - 0.5, 0 - 1, -2]]),
        (9, [[3, 4, 4], [7.5, -1, -2]]),
    ],
)
def test_rewards_are_summed_up_to_the_end(n_step: int, expected_EL: list[list[float]]) -> None:
    assert summed(REWARDS_EL, gamma=0.5, n_step=n_step).tolist() == expected_EL


@pytest.mark.parametrize(
    ("n_step", "expected_L"), [(1, [20, 30, 0]), (2, [30, 0, 0]), (3, [0] * 3), (9, [0] * 3)]
)
def test_values_come_from_n_sites_on_and_from_nowhere_after_the_end(
    n_step: int, expected_L: list[float]
) -> None:
    q_BLG = torch.tensor([[[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]]])
    later_BLG = bootstrap(q_BLG, n_step)
    assert later_BLG[0, :, 0].tolist() == expected_L
    assert later_BLG.shape == q_BLG.shape


def test_columns_say_how_far_a_target_looks_and_where_the_episode_is_over() -> None:
    episodes = Episodes(
        features_ELF=np.zeros((2, 3, 1), np.float32),
        actions_EL=np.array([[0, 1, 2], [2, 1, 0]]),
        cost_EL=-REWARDS_EL,
        loss_E=np.zeros(2, np.float32),
        penalty_E=np.ones(2, np.float32),
    )
    columns = train_batch(episodes, gamma=0.5, n_step=2)
    assert columns["rewards"].tolist() == [[2, 4, 4], [8, -1, -2]]
    assert columns["n_step"].tolist() == [[2, 2, 1]] * 2
    assert columns["terminateds"].tolist() == [[False, True, True]] * 2
    assert columns["obs"]["previous_groups"].tolist() == [[0, 1, 2], [0, 3, 2]]
    assert columns["actions"].tolist() == episodes.actions_EL.tolist()
