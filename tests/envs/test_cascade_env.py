"""Cascade-v0 is a gymnasium environment, replays from a seed, and its optimum is known."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from two_members import CHEAP, DEAR, STOP, table

from pruning_envs import CascadeEnv, CascadeVectorEnv


def rollout(seed: int) -> list[NDArray[Any]]:
    env = CascadeVectorEnv(table=table(), penalty=(0.01, 1.0), num_envs=5)
    draws = np.random.default_rng(3)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(12):
        observation, reward_B, over_B, _, info = env.step(draws.integers(0, 3, 5))
        seen += [observation, reward_B, over_B, info["image"]]
    return seen


@pytest.mark.parametrize("env_id", ["pruning_envs:Cascade-v0"])
def test_gymnasiums_checkers_pass(env_id: str) -> None:
    check_env(gym.make(env_id, table=table(), penalty=(0.1, 1.0)).unwrapped)
    env = gym.make_vec(
        env_id,
        num_envs=3,
        vectorization_mode="vector_entry_point",
        table=table,
        penalty=0.2,
    )
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = env.reset(seed=1)
    for _ in range(10):
        assert env.observation_space.contains(observation)
        observation, *_ = env.step(env.action_space.sample())


def test_a_seed_replays_bit_for_bit() -> None:
    assert all(map(np.array_equal, rollout(7), rollout(7)))
    assert not all(map(np.array_equal, rollout(7), rollout(8)))


def test_each_image_has_its_own_episode() -> None:
    env = CascadeVectorEnv(table=table(), penalty=0.2, num_envs=2, seed=0)
    env.reset()
    _, reward_B, over_B, _, info = env.step(np.array([STOP, CHEAP]))
    np.testing.assert_allclose(reward_B, [-0.5, -0.05], rtol=1e-5)  # a guess; 0.2 * 0.25
    assert over_B.tolist() == [True, False]
    assert (info["_loss"].tolist(), info["cost"].tolist()) == ([True, False], [0, 0.25])
    # The first image's action is ignored: its next episode begins.
    observation, reward_B, over_B, _, info = env.step(np.array([DEAR, DEAR]))
    assert (reward_B[0], observation[0, :-1].any()) == (0, False)
    assert reward_B[1] == pytest.approx(-0.2 - 0.1)  # all have run: over, without a stop
    assert (over_B.tolist(), info["members"][1]) == ([False, True], 3)


def test_a_member_that_has_run_is_not_run_again_but_stops() -> None:
    env = CascadeEnv(table=table(), penalty=0.2)
    env.reset(seed=0)
    env.step(np.int64(CHEAP))
    _, reward, over, _, info = env.step(np.int64(CHEAP))
    assert (over, info["cost"], info["members"]) == (True, 0, 1)
    assert reward == pytest.approx(-info["loss"])
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(np.int64(STOP))


def test_settings_and_actions_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`loss` must be one of"):
        CascadeVectorEnv(table=table(), penalty=0.1, loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`num_envs >= 1`"):
        CascadeVectorEnv(table=table(), penalty=0.1, num_envs=0)
    env = CascadeVectorEnv(table=table(), penalty=0.1)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(np.array([0]))
    env.reset()
    with pytest.raises(gym.error.InvalidAction, match=r"\[0, 2\]"):
        env.step(np.array([3]))


def test_gains_make_the_same_return_but_for_the_loss_of_a_guess() -> None:
    """A guess between two classes is wrong by a half; what runs or stops spares some of that."""
    final, gain = (
        CascadeVectorEnv(table=table(), penalty=(0.01, 1.0), num_envs=5, alpha=2.0, reward=kind)
        for kind in ("final", "gain")
    )
    actions = np.random.default_rng(3)
    earned = np.zeros((2, 5))
    final.reset(seed=1), gain.reset(seed=1)
    ended = 0
    for _ in range(30):
        actions_B = actions.integers(0, 3, 5)
        _, final_B, over_B, _, _ = final.step(actions_B)
        _, gain_B, same_B, _, _ = gain.step(actions_B)
        np.testing.assert_array_equal(over_B, same_B)
        earned += np.stack([final_B, gain_B])
        np.testing.assert_allclose((earned[1] - earned[0])[over_B], 2 * 0.5, atol=1e-5)
        earned[:, over_B] = 0
        ended += int(over_B.sum())
    assert ended > 30


def test_a_stop_gains_nothing_and_a_member_what_it_spares() -> None:
    env = CascadeVectorEnv(table=table(), penalty=0.2, num_envs=2, reward="gain", seed=0)
    env.reset(seed=0)
    _, reward_B, over_B, _, _ = env.step(np.array([STOP, DEAR]))
    # The dear member is 0.9 sure of the right class: 0.4 less to lose than by a guess, at 0.2.
    np.testing.assert_allclose(reward_B, [0.0, 0.2], atol=1e-6)
    assert over_B.tolist() == [True, False]
    with pytest.raises(ValueError, match="`reward` must be one of"):
        CascadeVectorEnv(table=table(), penalty=0.2, reward="later")  # type: ignore[arg-type]
