"""An env runner that samples whole lockstep episodes as arrays.

RLlib's own spends 70 to 100 microseconds of Python per environment step on episode objects and
connectors; here a step of all images is one call of the environment and one of the module.

Dimensions: E episodes (one per image), L sites, F features.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from pruning_envs import RuntimePruningVectorEnv
from runtime_pruning.agents.replay import Episodes

RLLIB_ENV_ID = "rllib-single-agent-env-v0"
WINDOW = 10  # lockstep batches that a runner's metrics average over


class BatchedEnvRunner(SingleAgentEnvRunner):  # type: ignore[misc]
    """Samples `Episodes`, and keeps the environment's backbone when RLlib makes it anew."""

    _backbone: tuple[Mapping[str, Any], int] | None = None

    @property
    def lockstep_env(self) -> RuntimePruningVectorEnv:
        """The environment, without RLlib's wrapper."""
        env: RuntimePruningVectorEnv = self.env.unwrapped
        return env

    def make_env(self) -> None:
        """Make the environment with this runner's share of the images and its last backbone."""
        # RLlib registers each environment under one name; gymnasium warns when it is taken.
        gymnasium.registry.pop(RLLIB_ENV_ID, None)
        super().make_env()
        seed = (self.config.seed or 0) + (self.worker_index or 0)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        if self.worker_index and self.num_workers > 1:
            self.lockstep_env.set_shard(self.worker_index - 1, self.num_workers)
        if self._backbone is not None:
            self.lockstep_env.set_backbone(*self._backbone)

    def set_backbone(self, state_dict: Mapping[str, Any], version: int) -> int | None:
        """Sample on other backbone weights from here on.

        Returns:
            The version that the next episode runs with; None where there is no environment.
        """
        self._backbone = (state_dict, version)
        return None if self.env is None else self.lockstep_env.set_backbone(state_dict, version)

    def replace_module_state(self, state: Mapping[str, Any]) -> None:
        """Take the learner's state, whether newer than the own or older."""
        self._weights_seq_no = 0
        self.set_state(dict(state))

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Episodes]:
        """Return whole lockstep episodes: one batch, or as many as reach the number asked for.

        Args:
            num_timesteps: at least so many steps.
            num_episodes: at least so many episodes.
            explore: act by the exploration schedule, or greedily; None as configured.
            random_actions: decide by chance alone.
            force_reset: no effect, since every sample starts anew.
        """
        explore = self.config.explore if explore is None else explore
        steps = self.num_envs * self.lockstep_env.sites
        wanted = num_timesteps or (num_episodes or 0) * self.lockstep_env.sites or steps
        epsilon = 1.0 if random_actions else None if explore else 0.0
        return [self._sample_batch(epsilon) for _ in range(-(-wanted // steps))]

    def _sample_batch(self, epsilon: float | None) -> Episodes:
        """Return one episode per image, at the schedule's epsilon if None is given."""
        env = self.lockstep_env
        observation, _ = env.reset()
        penalty_E = observation["penalty"][:, 0].copy()
        state = self.module.q_network.initial_state(self.num_envs)
        features, actions, costs = [], [], []
        facts: dict[str, Any] = {}
        for site in range(env.sites):
            action_E, state = self._act(site, observation, state, epsilon)
            features.append(observation["features"])
            observation, _, _, _, facts = env.step(action_E)
            actions.append(action_E)
            costs.append(facts["cost"])
        episodes = Episodes(
            features_ELF=np.stack(features, 1),
            actions_EL=np.stack(actions, 1),
            cost_EL=np.stack(costs, 1),
            loss_E=env.alpha * facts["loss"],
            penalty_E=penalty_E,
            backbone_version=env.backbone_version,
        )
        self._log(episodes, facts)
        return episodes

    def _act(
        self, site: int, observation: dict[str, Any], state: Any, epsilon: float | None
    ) -> tuple[np.ndarray, Any]:
        """Return the actions of all images at one site, and the module's next state."""
        if epsilon == 1.0:
            random_E = torch.randint(
                self.lockstep_env.groups,
                (self.num_envs,),
                generator=self._generator,
                device=self._device,
            )
            return random_E.cpu().numpy(), state
        obs = {
            "features": torch.from_numpy(observation["features"]).to(self._device),
            "previous_groups": torch.from_numpy(observation["previous_groups"]).to(self._device),
            "penalty": torch.from_numpy(observation["penalty"][:, 0]).to(self._device),
        }
        batch = {Columns.OBS: obs, "site": site, "state_in": state}
        with torch.inference_mode():
            if epsilon == 0.0:
                out = self.module.forward_inference(batch)
            else:
                t = self.num_env_steps_sampled_lifetime
                out = self.module.forward_exploration(batch, t=t, generator=self._generator)
        return out[Columns.ACTIONS].cpu().numpy(), out["state_out"]

    def _log(self, episodes: Episodes, facts: Mapping[str, Any]) -> None:
        """Count the steps and note what the episodes came to."""
        count = len(episodes.penalty_E)
        # RLlib sets this to the count over all runners now and then; in between, assume that
        # the others are as fast as this one.
        runners = self.config.num_env_runners or 1
        self.num_env_steps_sampled_lifetime += len(episodes) * runners
        self._increase_sampled_metrics(len(episodes), count)
        means = {
            "episode_return_mean": episodes.rewards_EL.sum(1).mean(),
            "episode_len_mean": episodes.actions_EL.shape[1],
            "accuracy": facts["correct"].mean(),
            "answer_loss": facts["loss"].mean(),
            "groups_mean": episodes.actions_EL.mean() + 1,
        }
        for name, value in means.items():
            self.metrics.log_value(name, float(value), window=WINDOW)
