"""Runtime pruning of one image at a time: the vector environment with one image."""

from typing import Any

import gymnasium as gym
import numpy as np

from pruning_envs.vector_env import RuntimePruningVectorEnv

Observation = dict[str, Any]


class RuntimePruningEnv(gym.Env[Observation, np.int64]):  # type: ignore[misc]
    """One image that passes through a network, one site per step.

    Args:
        settings: those of `RuntimePruningVectorEnv`, ``num_envs`` left out.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        self.batch = RuntimePruningVectorEnv(num_envs=1, **settings)
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode on the next image."""
        super().reset(seed=seed)
        self._over = False
        observations, infos = self.batch.reset(seed=seed, options=options)
        return _first(observations), _first(infos)

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Run one site with ``action + 1`` groups.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was started.
            gymnasium.error.InvalidAction: an action outside [0, groups).
        """
        if self._over:
            raise gym.error.ResetNeeded("The episode is over: call reset().")
        observations, reward_B, over_B, _, infos = self.batch.step(np.array([action]))
        self._over = bool(over_B[0])
        return _first(observations), float(reward_B[0]), self._over, False, _first(infos)


def _first(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the first image, without the vector form's presence masks."""
    return {name: column[0] for name, column in columns.items() if not name.startswith("_")}
