"""The environment that prunes one network: checkers, replay, and an episode by hand."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pruning_envs import NetworkPruningEnv
from pruning_envs.network_oracle import OracleLayers

LAYERS = OracleLayers(sizes=(0.5, 0.5), needs=(0.2, 0.6))


COSTS = {"size": LAYERS.size, "doubled": lambda pruned: 2 * LAYERS.size(pruned)}


class Noisy(OracleLayers):
    """An accuracy that depends on chance and on fine-tuning."""

    def accuracy(self, pruned: Any, /, *, finetune_steps: int, seed: int) -> float:
        drawn = float(np.random.default_rng(seed).random())
        return (drawn + finetune_steps) / (1 + finetune_steps)


def environment(**changes: Any) -> NetworkPruningEnv:
    return NetworkPruningEnv(**({"network": LAYERS, "costs": COSTS} | changes))


def episode(env: NetworkPruningEnv, *shares: float) -> tuple[Any, ...]:
    step: tuple[Any, ...] = ()
    for share in shares:
        step = env.step(np.array([share], np.float32))
    return step


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_it_passes_gymnasiums_checker() -> None:
    made = gym.make("pruning_envs:NetworkPruning-v0", network=LAYERS, costs=COSTS)
    check_env(made.unwrapped, skip_render_check=True)


def test_an_episode_by_hand() -> None:
    env = environment()
    observation, info = env.reset(seed=0)
    # Index over the greatest index, size over the greatest size, nothing removed.
    np.testing.assert_allclose(observation, [0, 1, 0])
    assert info["cost"].tolist() == [0, 0]
    observation, reward, over, _, info = episode(env, 0.5)
    np.testing.assert_allclose(observation, [1, 1, 0.25])
    assert (reward, over, info["cost"].tolist()) == (0, False, [0, 0])
    observation, reward, over, cut, info = episode(env, 0.25)
    np.testing.assert_allclose(observation, [1, 1, 0.375])  # of the last layer still
    assert (over, cut) == (True, False)
    assert reward == pytest.approx(100 * (1 - 0.2 * 0.25 - 0.6 * 0.0625))
    np.testing.assert_allclose(info["cost"], [0.625, 0.625])  # each over its own whole
    np.testing.assert_allclose(info["removed"], [0.5, 0.25])
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        episode(env, 0.1)


def test_it_replays_from_a_seed_and_fine_tunes_as_it_is_told() -> None:
    env = environment(network=Noisy((0.5, 0.5), (1.0, 1.0)))

    def rewards(seed: int) -> list[float]:
        env.reset(seed=seed)
        first = episode(env, 0.5, 0.5)[1]
        env.reset()
        return [first, episode(env, 0.5, 0.5)[1]]

    first = rewards(3)
    assert rewards(3) == first
    assert rewards(4) != first
    assert first[0] != first[1]
    env.finetune_steps = 1
    assert rewards(3) == pytest.approx([(100 + each) / 2 for each in first])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most_removed": 0}, "`0 < most_removed <= 1`"),
        ({"finetune_steps": -1}, "`finetune_steps >= 0`"),
        ({"costs": {"free": lambda _: 0.0}}, "costs must be above 0, but got {'free': 0.0}"),
        ({"network": OracleLayers((), ())}, "must have layers"),
        ({"network": OracleLayers((-1.0,), (1.0,))}, "at least 0"),
    ],
)
def test_what_cannot_be_pruned_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment(**changes)


@pytest.mark.parametrize("action", [[0.95], [-0.1], [0.1, 0.1], 0.5, [np.nan]])
def test_actions_out_of_range_are_refused(action: Any) -> None:
    env = environment()
    env.reset()
    with pytest.raises(gym.error.InvalidAction, match=r"\[0, 0.9\]"):
        env.step(action)
