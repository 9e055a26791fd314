"""The best that a chooser can earn, by hand, and earned."""

from typing import Any

import numpy as np
import pytest

from pruning_envs import CascadeTable, CascadeVectorEnv
from pruning_envs.cascade_oracle import best_return, hindsight

# Member 0 is cheap and unsure of images 2 and 3; member 1 is dear and right. Together: member 1.
PROBABILITIES = np.array(
    [
        [[0.9, 0.1], [0.9, 0.1]],
        [[0.1, 0.9], [0.1, 0.9]],
        [[0.5, 0.5], [0.9, 0.1]],
        [[0.5, 0.5], [0.1, 0.9]],
    ]
)


LABELS = np.array([0, 1, 0, 1])

STOP, CHEAP, DEAR = 0, 1, 2


def table(**changes: Any) -> CascadeTable:
    given: dict[str, Any] = {
        "log_probabilities_NMK": np.log(PROBABILITIES).astype(np.float32),
        "labels_N": LABELS,
        "costs_NM": np.tile(np.array([0.25, 1.0], np.float32), (4, 1)),
        "weights_SM": np.array([[0, 0], [1, 0], [0, 1], [0, 1]], np.float32),
        **changes,
    }
    return CascadeTable(**given)


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
