"""The constrained loss, and the costs of an episode, by hand."""

import numpy as np
import pytest
import torch
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from runtime_pruning.agents.lagrangian_learner import lagrangian_loss, step_costs


def test_the_loss_by_hand() -> None:
    ratio_B = torch.tensor([1.5, 0.5])
    advantage_B = torch.tensor([1.0, -2.0])
    cost_BK = torch.tensor([[1.0, 0.0], [-1.0, 4.0]])
    # Gains: min(1.5, 1.2) = 1.2; min(-1, -1.6) = -1.6; their mean is -0.2.
    # Dearness, unclipped: (1.5 - 0.5) / 2 = 0.5 and (0 + 2) / 2 = 1.
    loss = lagrangian_loss(ratio_B, advantage_B, cost_BK, (2.0, 1.0), clip=0.2)
    assert float(loss) == pytest.approx((0.2 + 2 * 0.5 + 1 * 1) / (1 + 3))
    free = lagrangian_loss(ratio_B, advantage_B, cost_BK, (0.0, 0.0), clip=0.2)
    assert float(free) == pytest.approx(0.2)


def test_a_step_costs_what_its_info_says() -> None:
    episode = SingleAgentEpisode(
        observations=[np.zeros(1)] * 3,
        actions=[np.zeros(1)] * 2,
        rewards=[0.0, 1.0],
        infos=[{"cost": np.array([9.0, 9.0])}, {}, {"cost": np.array([0.25, 0.5])}],
        len_lookback_buffer=0,
    )
    assert step_costs(episode, 2).tolist() == [[0, 0], [0.25, 0.5]]
