"""Deep Q-learning of pruning decisions on RLlib's learner, with whole episodes as arrays.

RLlib's: learner, loss, target networks, optimiser, checkpoints, env runner actors and their
restarts. Ours, on its public extension points: the env runner, the replay, the training step.

Dimensions: B episodes, L sites, F features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TD_ERROR_KEY,
)

from runtime_pruning.agents.algorithm import PruningAlgorithm
from runtime_pruning.agents.replay import EpisodeReplay
from runtime_pruning.agents.rl_module import QF_NEXT, QF_TARGET_NEXT
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.agents.targets import greedy_returns, train_batch
from runtime_pruning.errors import UserError

STANDARDISING_EPISODES = 1024


class PruningDQNConfig(DQNConfig):  # type: ignore[misc]
    """RLlib's configuration, with `DQNSettings` under ``settings``. Made by `dqn_config`."""

    def __init__(self, algo_class: type[DQN] | None = None) -> None:
        super().__init__(algo_class=algo_class or PruningDQN)
        self.settings = DQNSettings()


class WholeEpisodeLearner(DQNTorchLearner):  # type: ignore[misc]
    """RLlib's DQN learner for batches of shape (B, L).

    The loss squeezes its targets, which would turn a batch of one-step episodes, (B, 1), into an
    outer product; so the site dimension joins the batch dimension first.
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Return RLlib's loss over all steps of all episodes."""
        if config.settings.greedy_returns:
            returns_BL = greedy_returns(
                batch[Columns.REWARDS],
                batch[Columns.ACTIONS],
                fwd_out[QF_NEXT],
                fwd_out[QF_TARGET_NEXT],
                gamma=config.gamma,
                double_q=config.double_q,
            )
            # They hold what comes after: nothing is left to bootstrap.
            batch = {
                **batch,
                Columns.REWARDS: returns_BL,
                Columns.TERMINATEDS: torch.ones_like(batch[Columns.TERMINATEDS]),
            }
        flat = {name: column.flatten(0, 1) for name, column in batch.items() if name != "obs"}
        values = {name: q_BLG.flatten(0, 1) for name, q_BLG in fwd_out.items()}
        loss: torch.Tensor = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=flat, fwd_out=values
        )
        return loss


class PruningDQN(PruningAlgorithm, DQN):  # type: ignore[misc]
    """RLlib's DQN, fed with whole episodes. Build it with `build`."""

    config: PruningDQNConfig

    def setup(self, config: PruningDQNConfig) -> None:
        """Build RLlib's parts and the replay."""
        super().setup(config)
        settings = config.settings
        self.local_replay_buffer = EpisodeReplay(settings.replay_episodes, seed=config.seed)
        self._updates_due = 0.0
        self._standardised = not settings.standardise

    @classmethod
    def get_default_config(cls) -> PruningDQNConfig:
        """Return the configuration that RLlib starts from."""
        return PruningDQNConfig(algo_class=cls)

    def training_step(self) -> None:
        """Sample one lockstep batch per env runner, then take the gradient steps due for it.

        Raises:
            UserError: no env runner answered in time.
        """
        with _threads(self.config.settings.driver_threads):
            self._sample_and_learn()

    def _sample_and_learn(self) -> None:
        added = self._sample()
        steps = self.env_steps
        if not added or steps < self.config.num_steps_sampled_before_learning_starts:
            return
        if not self._standardised:
            self._standardise()
        settings = self.config.settings
        self._updates_due += settings.replay_ratio * added / settings.batch_episodes
        if self._updates_due < 1:
            return
        while self._updates_due >= 1:
            self._updates_due -= 1
            results = self._update(steps)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            policies=set(results[0]) - {ALL_MODULES},
            inference_only=True,
        )

    def _sample(self) -> int:
        """Add one round of episodes to the replay; return how many are worth learning from."""
        samples, metrics = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            concat=False,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        if not samples and self.env_runner_group.num_healthy_remote_workers():
            raise UserError(
                f"Env runners must answer within `sample_timeout_s`, but none did in "
                f"{self.config.sample_timeout_s:g} s: give them more time, or fewer images "
                "(`images_per_runner`)."
            )
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        batches = [episodes for runner in samples for episodes in runner]
        return sum(self.local_replay_buffer.add(episodes) for episodes in batches)

    def _standardise(self) -> None:
        """Measure the features of the episodes so far, and standardise by them from here on."""
        drawn = self.local_replay_buffer.sample(STANDARDISING_EPISODES)
        features_BLF = torch.from_numpy(drawn.features_ELF)
        self.learner_group.foreach_learner(
            lambda learner: (
                learner.module[DEFAULT_MODULE_ID]
                .unwrapped()
                .standardise(features_BLF.to(learner.device))
            )
        )
        self._standardised = True

    def _update(self, steps: int) -> list[dict[str, Any]]:
        """Take one gradient step; return the learners' results."""
        settings = self.config.settings
        episodes = self.local_replay_buffer.sample(
            settings.batch_episodes,
            self.config.env_config["penalty"] if settings.relabel else None,
        )
        columns = train_batch(episodes, gamma=settings.gamma, n_step=settings.n_step)
        batch = MultiAgentBatch({DEFAULT_MODULE_ID: columns}, len(episodes))
        results: list[dict[str, Any]] = self.learner_group.update(
            batch=batch,
            timesteps={
                NUM_ENV_STEPS_SAMPLED_LIFETIME: steps,
                NUM_AGENT_STEPS_SAMPLED_LIFETIME: steps,
            },
        )
        for result in results:
            for per_module in result.values():
                per_module.pop(TD_ERROR_KEY, None)  # one value per step: no metric
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        return results

    # -- checkpoints ------------------------------------------------------------------------

    def forget_episodes(self) -> None:
        """Drop the replay's episodes: their features and losses are those of another network."""
        self.local_replay_buffer.flush(self.backbone_version)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, the backbone and, if so set, the replay."""
        state = super().get_state(*args, **kwargs)
        replay = self.local_replay_buffer.get_state() if self.config.settings.store_replay else None
        own = {"standardised": self._standardised, "replay": replay}
        return state | {"pruning": state["pruning"] | own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        super().set_state(state)
        own = state.get("pruning")
        if own is None:
            return
        self._standardised = own["standardised"]
        self.forget_episodes()
        if own["replay"] is not None:
            self.local_replay_buffer.set_state(own["replay"])


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads meanwhile; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
