"""One image at a time: gymnasium's checkers pass, and the vector environment is meant."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pruning_envs import RuntimePruningVectorEnv

MAKE = "pruning_envs:RuntimePruning-v0"


def make_vec(num_envs: int, settings: dict[str, Any]) -> RuntimePruningVectorEnv:
    env = gym.make_vec(MAKE, num_envs=num_envs, vectorization_mode="vector_entry_point", **settings)
    assert isinstance(env, RuntimePruningVectorEnv)
    return env


@pytest.mark.parametrize("env_id", ["RuntimePruning-v0"])
def test_single_environment_passes_the_checker(env_id: str, settings: dict[str, Any]) -> None:
    check_env(gym.make(env_id, **settings).unwrapped, skip_render_check=True)


def test_single_environment_runs_behind_gymnasiums_passive_checker(
    settings: dict[str, Any],
) -> None:
    env = gym.make(MAKE, **settings)
    env.reset(seed=1)
    env.step(np.int64(0))
    *_, terminated, truncated, info = env.step(np.int64(1))
    assert (terminated, truncated) == (True, False)
    assert set(info) == {"cost", "image", "loss", "correct", "executed_macs"}
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.int64(1))


def test_single_environment_is_the_vector_one_with_one_image(settings: dict[str, Any]) -> None:
    single, batch = gym.make(MAKE, **settings), make_vec(1, settings)
    single.reset(seed=5)
    batch.reset(seed=5)
    for action in (1, 0):
        seen, reward, *_ = single.step(np.int64(action))
        seen_B, reward_B, *_ = batch.step(np.array([action]))
        assert reward == reward_B[0]
        assert all(np.array_equal(seen[name], seen_B[name][0]) for name in seen)
