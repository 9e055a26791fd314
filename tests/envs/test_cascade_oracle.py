"""The best that a chooser can earn, by hand, and earned."""

import numpy as np
import pytest
from two_members import CHEAP, DEAR, STOP, table

from pruning_envs import CascadeVectorEnv
from pruning_envs.cascade_oracle import best_return, hindsight


def test_the_optimum_by_hand() -> None:
    # Run the cheap one: 0.05. Then stop where it was sure (0.1), run the dear one elsewhere.
    assert best_return(table(), 0.2) == pytest.approx(-0.05 - (0.1 + 0.3) / 2)
    # Who knows beforehand which images are hard gives them to the dear one alone.
    np.testing.assert_allclose(hindsight(table(), 0.2), [-0.15, -0.15, -0.3, -0.3], rtol=1e-5)
    assert best_return(table(), 2.0) == pytest.approx(-0.5)  # a guess is free


def test_what_decides_by_the_optimum_earns_it() -> None:
    env = CascadeVectorEnv(table=table(), penalty=0.2, num_envs=4)
    observation, _ = env.reset(seed=0)  # each image once
    total_B = np.zeros(4)
    open_B = np.ones(4, np.bool_)
    while open_B.any():
        nothing_B = (observation[:, 5:7] == 0).all(axis=1)
        sure_B = observation[:, 2] > 0.5  # margin
        observation, reward_B, over_B, *_ = env.step(
            np.where(nothing_B, CHEAP, np.where(sure_B, STOP, DEAR))
        )
        total_B += reward_B * open_B
        open_B &= ~over_B
    assert total_B.mean() == pytest.approx(best_return(table(), 0.2))
