"""What whole episodes teach: n-step rewards, and the site from which a target bootstraps.

The target of the decision at site t is the discounted sum of the next n rewards, plus gamma^n times
the value at site t + n; where the episode ends before, the rewards are all there is.
Source: Sutton, "Learning to Predict by the Methods of Temporal Differences", 1988; in deep
Q-learning without correction for exploration as in Hessel et al., "Rainbow", 2018.

Dimensions: B episodes, L sites, G groups, n steps.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.policy.sample_batch import SampleBatch
from torch import Tensor

from runtime_pruning.agents.replay import Episodes


def train_batch(episodes: Episodes, *, gamma: float, n_step: int) -> SampleBatch:
    """Return episodes in RLlib's columns, each (B, L): rewards are n-step sums."""
    shape = episodes.actions_EL.shape
    site_L = np.arange(shape[1])
    steps_L = np.minimum(n_step, shape[1] - site_L)
    columns = {
        "obs": {
            "features": episodes.features_ELF,
            "previous_groups": episodes.previous_EL,
            "penalty": episodes.penalty_E,
        },
        "actions": episodes.actions_EL,
        "rewards": summed(episodes.rewards_EL, gamma=gamma, n_step=n_step),
        "terminateds": np.broadcast_to(site_L + n_step >= shape[1], shape).copy(),
        "weights": np.ones(shape, np.float32),
        "n_step": np.broadcast_to(steps_L.astype(np.float32), shape).copy(),
    }
    return SampleBatch(columns)


def summed(rewards_BL: NDArray[np.float32], *, gamma: float, n_step: int) -> NDArray[np.float32]:
    """Return, for each site, the discounted sum of its reward and the next ``n_step - 1``."""
    total_BL = np.zeros_like(rewards_BL)
    for ahead in range(min(n_step, rewards_BL.shape[1])):
        total_BL[:, : rewards_BL.shape[1] - ahead] += gamma**ahead * rewards_BL[:, ahead:]
    return total_BL


def greedy_returns(
    rewards_BL: Tensor,
    actions_BL: Tensor,
    q_next_BLG: Tensor,
    target_next_BLG: Tensor,
    *,
    gamma: float,
    double_q: bool,
) -> Tensor:
    """Return ``target_BL``: rewards up to the first decision that is not greedy, then a value.

    Source: Watkins, "Learning from Delayed Rewards", 1989 (Q(lambda) at lambda 1); the same as
    Retrace for a greedy policy, Munos et al., "Safe and Efficient Off-Policy Reinforcement
    Learning", 2016.

    Args:
        rewards_BL: of each decision.
        actions_BL: that were taken.
        q_next_BLG: values of the network that acts, at the site after each; zero after the last.
        target_next_BLG: the target network's.
        gamma: discount per site.
        double_q: the network that acts says what is greedy; otherwise the target network.
    """
    greedy_BL = (q_next_BLG if double_q else target_next_BLG).argmax(2)
    value_BL = target_next_BLG.gather(2, greedy_BL[..., None])[..., 0]
    target_BL = rewards_BL.clone()
    for site in range(rewards_BL.shape[1] - 2, -1, -1):
        follows_B = actions_BL[:, site + 1] == greedy_BL[:, site]
        ahead_B = torch.where(follows_B, target_BL[:, site + 1], value_BL[:, site])
        target_BL[:, site] += gamma * ahead_B
    return target_BL


def bootstrap(q_BLG: Tensor, n_step: int) -> Tensor:
    """Return the values ``n_step`` sites on; zero where the episode is over by then."""
    beyond = min(n_step, q_BLG.shape[1])
    return torch.cat([q_BLG[:, beyond:], torch.zeros_like(q_BLG[:, :beyond])], dim=1)
