"""Deep Q-learning of pruning decisions on RLlib's learner, with whole episodes as arrays.

RLlib's: learner, loss, target networks, optimiser, checkpoints, env runner actors and their
restarts. Ours, on its public extension points: the env runner, the replay, the training step.

Dimensions: B episodes, L sites, F features.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TD_ERROR_KEY,
)

from pruning_envs import AnswerLoss, ExecutionMode, PenaltyRange, StagedNetwork, StepCost
from runtime_pruning.agents.decision_network import DecisionConfig
from runtime_pruning.agents.env_runner import BatchedEnvRunner
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.agents.replay import EpisodeReplay
from runtime_pruning.agents.rl_module import QF_NEXT, QF_TARGET_NEXT, RNPModule
from runtime_pruning.agents.rllib_env import ENV_ID, register_environments
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.agents.targets import greedy_returns, train_batch
from runtime_pruning.errors import ContractError

LEARNER, MODULE = "learner", "rl_module"
STANDARDISING_EPISODES = 1024


class LabelledImages(Protocol):
    """Images and labels as arrays: a dataset's split is one."""

    @property
    def images_NCHW(self) -> NDArray[np.uint8]:
        """Raw pixels."""

    @property
    def labels_N(self) -> NDArray[np.int64]:
        """Class indices."""


class PruningDQNConfig(DQNConfig):  # type: ignore[misc]
    """RLlib's configuration, with `DQNSettings` under ``settings``. Made by `dqn_config`."""

    def __init__(self, algo_class: type[DQN] | None = None) -> None:
        super().__init__(algo_class=algo_class or PruningDQN)
        self.settings = DQNSettings()


def dqn_config(
    *,
    network: "StagedNetwork | ray.ObjectRef",
    data: "LabelledImages | ray.ObjectRef",
    penalty: float | tuple[float, float] | PenaltyRange,
    alpha: float = 1.0,
    loss: AnswerLoss = "cross-entropy",
    settings: DQNSettings | None = None,
    split: str | None = None,
    step_cost: StepCost | None = None,
    mode: ExecutionMode = "masked",
    decides_from: int = 0,
) -> PruningDQNConfig:
    """Return the configuration of an agent that learns to prune one network. Starts Ray if needed.

    Args:
        network: runs stage by stage, or a reference to one in the object store.
        data: images that rewards come from, or a reference to them.
        penalty: reward lost per unit of cost; a pair is drawn from log-uniformly per episode.
        alpha: weight of the answer's loss in the reward.
        loss: of the answer.
        settings: how the agent learns.
        split: take this attribute of ``data``: a reference to a whole dataset can be given.
        step_cost: what decisions cost; None is the paper's count of groups. Must pickle.
        mode: how the environment executes the network.
        decides_from: the first site that the agent decides; those before it run one group.

    Raises:
        ValueError: a penalty that is none.
    """
    settings = settings or DQNSettings()
    shared_network: ObjectStoreValue[Any] = ObjectStoreValue(network)
    staged: Any = shared_network.get()
    decision = DecisionConfig(
        feature_widths=tuple(staged.feature_widths),
        groups=int(staged.groups),
        encoder=settings.encoder,
        hidden=settings.hidden,
        cell=settings.cell,
        dueling=settings.dueling,
        decides_from=decides_from,
    )
    env_config = {
        "network": shared_network,
        "data": ObjectStoreValue(data),
        "split": split,
        "penalty": PenaltyRange.of(penalty),
        "alpha": alpha,
        "loss": loss,
        "step_cost": None if step_cost is None else ObjectStoreValue(step_cost),
        "mode": mode,
        "seed": settings.seed,
        "device": settings.env_device,
        "flatten": False,
    }
    config = PruningDQNConfig()
    config.settings = settings
    config.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    register_environments()
    config.environment(ENV_ID, env_config=env_config, normalize_actions=False)
    _configure_sampling(config, settings, decision.num_sites)
    _configure_learning(config, settings, decision)
    return config


def _configure_sampling(config: PruningDQNConfig, settings: DQNSettings, sites: int) -> None:
    """Set how env runners sample, and how much of it is one training iteration."""
    config.env_runners(
        env_runner_cls=BatchedEnvRunner,
        num_env_runners=settings.env_runners,
        num_envs_per_env_runner=settings.images_per_runner,
        num_cpus_per_env_runner=settings.cpus_per_env_runner,
        num_gpus_per_env_runner=0,
        gym_env_vectorize_mode="vector_entry_point",
        rollout_fragment_length=sites,
    )
    # One request at a time would drop weights that are sent while another is under way.
    config.max_requests_in_flight_per_env_runner = 4
    config.fault_tolerance(restart_failed_env_runners=True)
    one_round = settings.images_per_runner * sites * max(1, settings.env_runners)
    config.reporting(min_sample_timesteps_per_iteration=one_round, min_time_s_per_iteration=0)
    config.debugging(seed=settings.seed, log_level="ERROR")


def _configure_learning(
    config: PruningDQNConfig, settings: DQNSettings, decision: DecisionConfig
) -> None:
    """Set RLlib's learner."""
    config.training(
        gamma=settings.gamma,
        lr=settings.lr,
        grad_clip=settings.grad_clip,
        grad_clip_by="global_norm",
        td_error_loss_fn=settings.loss,
        double_q=settings.double_q,
        dueling=False,  # the network's own business
        num_atoms=1,
        n_step=1,  # ours is in the columns
        tau=settings.tau,
        target_network_update_freq=settings.target_update_steps,
        train_batch_size=settings.batch_episodes * decision.num_sites,
        num_steps_sampled_before_learning_starts=settings.warmup_episodes * decision.num_sites,
        learner_class=WholeEpisodeLearner,
    )
    config.learners(num_learners=0, num_gpus_per_learner=settings.learner_gpus)
    config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=RNPModule,
            model_config={
                "decision": decision,
                "epsilon": settings.epsilon,
                "n_step": settings.n_step,
            },
        )
    )


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


class PruningDQN(DQN):  # type: ignore[misc]
    """RLlib's DQN, fed with whole episodes. Build it with `build`."""

    config: PruningDQNConfig

    def setup(self, config: PruningDQNConfig) -> None:
        """Build RLlib's parts and the replay."""
        super().setup(config)
        settings = config.settings
        self.local_replay_buffer = EpisodeReplay(settings.replay_episodes, seed=settings.seed)
        self.backbone: Mapping[str, Any] | None = None
        self.backbone_version = 0
        self._updates_due = 0.0
        self._standardised = not settings.standardise

    @classmethod
    def get_default_config(cls) -> PruningDQNConfig:
        """Return the configuration that RLlib starts from."""
        return PruningDQNConfig(algo_class=cls)

    def training_step(self) -> None:
        """Sample one lockstep batch per env runner, then take the gradient steps due for it."""
        with _threads(self.config.settings.driver_threads):
            self._sample_and_learn()

    def _sample_and_learn(self) -> None:
        added = self._sample()
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
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
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        batches = [episodes for runner in samples for episodes in runner]
        return sum(self.local_replay_buffer.add(episodes) for episodes in batches)

    def _standardise(self) -> None:
        """Measure the features of the episodes so far, and standardise by them from here on."""
        drawn = self.local_replay_buffer.sample(STANDARDISING_EPISODES)
        features_BLF = torch.from_numpy(drawn.features_ELF)
        self.learner_group.foreach_learner(
            lambda learner: learner.module[DEFAULT_MODULE_ID].standardise(
                features_BLF.to(learner.device)
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

    # -- the backbone -----------------------------------------------------------------------

    def push_backbone(self, state_dict: Mapping[str, Any], version: int) -> None:
        """Sample on other backbone weights from here on; see the function `push_backbone`."""
        self.backbone = {name: value.detach().cpu().clone() for name, value in state_dict.items()}
        self.backbone_version = version
        self.local_replay_buffer.flush(version)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                self._send_backbone(group, None)

    def _send_backbone(self, group: EnvRunnerGroup, worker_ids: list[int] | None) -> None:
        """Set the backbone of all runners of a group, or of some, and see that they have it."""
        if self.backbone is None:
            return
        version = self.backbone_version
        shared: ObjectStoreValue[Mapping[str, Any]] = ObjectStoreValue(self.backbone)
        answers = group.foreach_env_runner(
            lambda runner: runner.set_backbone(shared.get(), version),
            remote_worker_ids=worker_ids,
            local_env_runner=worker_ids is None,
        )
        if any(answer not in (None, version) for answer in answers):
            raise ContractError(f"Env runners should run backbone {version}, but run {answers}.")

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """Bring failed env runners back, and the backbone with them."""
        restored: list[int] = super().restore_env_runners(env_runner_group)
        if restored:
            self._send_backbone(env_runner_group, restored)
        return restored

    # -- checkpoints ------------------------------------------------------------------------

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the configuration without network and data, which lie in this cluster's store."""
        (state,), kwargs = super().get_ctor_args_and_kwargs()
        plain = {
            k: v for k, v in state["env_config"].items() if not isinstance(v, ObjectStoreValue)
        }
        return (state | {"env_config": plain},), kwargs

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, the backbone and, if so set, the replay."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        replay = self.local_replay_buffer.get_state() if self.config.settings.store_replay else None
        return state | {
            "pruning": {
                "backbone": self.backbone,
                "backbone_version": self.backbone_version,
                "standardised": self._standardised,
                "replay": replay,
            }
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        super().set_state(state)
        own = state.get("pruning")
        if own is None:
            return
        self._standardised = own["standardised"]
        if own["backbone"] is not None:
            self.push_backbone(own["backbone"], own["backbone_version"])
        self.local_replay_buffer.flush(self.backbone_version)
        if own["replay"] is not None:
            self.local_replay_buffer.set_state(own["replay"])

    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        """Restore, and wait until all env runners act with the restored weights."""
        super().restore_from_path(path, *args, **kwargs)
        state = self.learner_group.get_state(components=f"{LEARNER}/{MODULE}", inference_only=True)[
            LEARNER
        ]
        shared: ObjectStoreValue[dict[str, Any]] = ObjectStoreValue(state)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.replace_module_state(shared.get()))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads meanwhile; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
