"""One image at a time: a vector environment with one image, for any of them."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from pruning_envs.vector_env import RuntimePruningVectorEnv

Observation = dict[str, Any]


class OneImageEnv(gym.Env[Any, np.int64]):  # type: ignore[misc]
    """The episodes of a vector environment, one after the other.

    Args:
        settings: those of the vector environment, ``num_envs`` left out.

    Attributes:
        vector_type: what makes the vector environment.
        batch: it, of one image.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    vector_type: ClassVar[type[Any]]

    def __init__(self, **settings: Any) -> None:
        self.batch = self.vector_type(num_envs=1, **settings)
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode on the next image."""
        super().reset(seed=seed)
        self._over = False
        observations, infos = self.batch.reset(seed=seed, options=options)
        return _first(observations), _first(infos)

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action of the vector environment's for the image.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was started.
            gymnasium.error.InvalidAction: an action that the vector environment refuses.
        """
        if self._over:
            raise gym.error.ResetNeeded("The episode is over: call reset().")
        observations, reward_B, over_B, _, infos = self.batch.step(np.array([action]))
        self._over = bool(over_B[0])
        return _first(observations), float(reward_B[0]), self._over, False, _first(infos)


class RuntimePruningEnv(OneImageEnv):
    """One image that passes through a network, one site per step: ``action + 1`` groups run.

    Args:
        settings: those of `RuntimePruningVectorEnv`, ``num_envs`` left out.
    """

    vector_type = RuntimePruningVectorEnv


def _first(columns: Any) -> Any:
    """Return what is the first image's: of named columns those that hold, without their masks."""
    if not isinstance(columns, dict):
        return columns[0]
    return {
        name: column[0]
        for name, column in columns.items()
        if not name.startswith("_") and columns.get(f"_{name}", (True,))[0]
    }
