"""PPO-Lagrangian: an agent that prunes one network within budgets, on RLlib's PPO.

RLlib's: env runners and their restarts, learner, optimiser, checkpoints. Ours, on its extension
points: the module, the learner's loss, the advantages of costs, the dual variables. These are the
algorithm's own, so that they are the same whatever number of learners there is.

Dimension: K costs.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from runtime_pruning.agents.algorithm import StoredAlgorithm
from runtime_pruning.agents.base import ConstrainedProblem, Rollouts
from runtime_pruning.agents.dual import DualVariables
from runtime_pruning.agents.lagrangian_learner import LagrangianLearner, step_costs
from runtime_pruning.agents.lagrangian_module import LagrangianModule
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.agents.rllib_env import NETWORK_ID, register_environments
from runtime_pruning.agents.settings import PPOLagrangianSettings
from runtime_pruning.errors import UserError


class PPOLagrangianConfig(PPOConfig):  # type: ignore[misc]
    """RLlib's configuration, with ``settings``, ``budgets`` and the number of ``layers``.

    Made by `lagrangian_config`.
    """

    def __init__(self, algo_class: type[PPO] | None = None) -> None:
        super().__init__(algo_class=algo_class or PPOLagrangian)
        self.settings = PPOLagrangianSettings()
        self.budgets: tuple[float, ...] = ()
        self.layers = 1


class PPOLagrangian(StoredAlgorithm, PPO):  # type: ignore[misc]
    """PPO that learns what its constraints are worth; a `ConstrainedAgent`.

    Attributes:
        dual: the multipliers.
        finetune_steps: that a pruned network learns for in the next episodes.
    """

    def setup(self, config: PPOLagrangianConfig) -> None:
        """Build RLlib's parts and the dual variables."""
        super().setup(config)
        settings = config.settings
        self.dual = DualVariables(
            config.budgets,
            initial=settings.multiplier,
            lr=settings.multiplier_lr,
            least=settings.least_multiplier,
            damping=settings.damping,
        )
        self.finetune_steps = 0

    @property
    def env_steps(self) -> int:
        """Layers decided so far, over all env runners."""
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        return int(steps)

    @property
    def num_layers(self) -> int:
        """Decisions that prune a network: the length of every episode."""
        return int(self.config.layers)

    def learn(self, episodes: int) -> None:
        """Train on at least so many more episodes."""
        for _ in range(math.ceil(episodes / self.config.settings.batch_episodes)):
            self.train()

    def training_step(self) -> None:
        """Sample whole episodes, let the multipliers follow their costs, and train on them."""
        episodes = self._sample()
        self.dual.update(np.mean([self._cost(episode) for episode in episodes], axis=0))
        multipliers = self.dual.multipliers
        self.learner_group.foreach_learner(
            lambda learner: setattr(learner, "multipliers", multipliers)
        )
        results = self.learner_group.update(
            episodes=episodes,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
            num_epochs=self.config.num_epochs,
            minibatch_size=self.config.minibatch_size,
            shuffle_batch_per_epoch=self.config.shuffle_batch_per_epoch,
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            policies=set(results[0]) - {ALL_MODULES},
            inference_only=True,
        )

    def roll_out(self, episodes: int) -> Rollouts:
        """Return at least so many episodes of the agent as it is; nothing is learned from them."""
        done: list[Any] = []
        while len(done) < episodes:
            done += self._sample()
        infos = [episode.get_infos()[-1] for episode in done]
        return Rollouts(
            np.stack([np.asarray(info["removed"], np.float64) for info in infos]),
            np.array([info["accuracy"] for info in infos], np.float64),
            np.stack([self._cost(episode) for episode in done]),
        )

    def _sample(self) -> list[Any]:
        """Return a batch of whole episodes, from all env runners."""
        steps = self.finetune_steps

        def prepare(runner: Any) -> None:
            if runner.env is not None:
                runner.env.unwrapped.set_attr("finetune_steps", steps)

        self.env_runner_group.foreach_env_runner(prepare)
        episodes, metrics = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            max_env_steps=self.config.total_train_batch_size,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        if not episodes:
            raise UserError(
                "Env runners must answer within `sample_timeout_s`, but none did in "
                f"{self.config.sample_timeout_s:g} s: give them more time, or fewer episodes "
                "(`batch_episodes`)."
            )
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        return list(episodes)

    def _cost(self, episode: Any) -> NDArray[np.float64]:
        """Return ``cost_K`` of an episode."""
        cost_TK = step_costs(episode, len(self.config.budgets))
        return np.asarray(cost_TK.sum(axis=0), np.float64)

    # -- checkpoints ------------------------------------------------------------------------

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state and the dual variables."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        return state | {"dual": self.dual.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        super().set_state(state)
        if "dual" in state:
            self.dual.set_state(state["dual"])

    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        """Restore, and wait until all env runners act with the restored weights."""
        super().restore_from_path(path, *args, **kwargs)
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )


def lagrangian_config(
    problem: ConstrainedProblem, settings: PPOLagrangianSettings
) -> PPOLagrangianConfig:
    """Return the configuration of an agent that prunes one network within budgets.

    The network is put into Ray's object store, which is started if need be.
    """
    register_environments()
    config = PPOLagrangianConfig()
    config.settings, config.budgets = settings, tuple(problem.budgets.values())
    config.environment(
        NETWORK_ID,
        env_config={
            "network": ObjectStoreValue(problem.network),
            "costs": ObjectStoreValue(dict(problem.costs)),
            "most_removed": settings.most_removed,
        },
    )
    config.debugging(seed=problem.seed, log_level="ERROR")
    runner, learner = problem.resources.env_runner, problem.resources.learner
    config.env_runners(
        num_env_runners=runner.workers,
        num_envs_per_env_runner=1,
        num_cpus_per_env_runner=runner.cpus,
        num_gpus_per_env_runner=runner.gpus,
        batch_mode="complete_episodes",
        sample_timeout_s=settings.sample_timeout_s,
    )
    config.max_requests_in_flight_per_env_runner = 4
    config.fault_tolerance(restart_failed_env_runners=True)
    config.learners(
        num_learners=learner.workers,
        num_cpus_per_learner=learner.cpus,
        num_gpus_per_learner=learner.gpus,
    )
    layers = config.layers = len(problem.network.layers_TF)
    config.training(
        lr=settings.lr,
        train_batch_size=settings.batch_episodes * layers,
        minibatch_size=min(settings.minibatch, settings.batch_episodes * layers),
        num_epochs=settings.epochs,
        grad_clip=settings.grad_clip,
        grad_clip_by="global_norm",
        use_kl_loss=False,
        learner_class=LagrangianLearner,
    )
    config.reporting(min_time_s_per_iteration=0)
    config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=LagrangianModule,
            model_config={
                "hidden": settings.hidden,
                "log_std": settings.log_std,
                "costs": len(config.budgets),
            },
        )
    )
    return config
