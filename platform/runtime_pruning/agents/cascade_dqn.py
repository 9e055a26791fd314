"""RLlib's stock DQN learns who runs next in a cascade: one agent, told the penalty.

The environment is a table, so that nothing of ours is needed to be fast enough: RLlib's own env
runners, replay, learner and default network. Ours are the settings, and the way out of RLlib.
"""

from typing import TYPE_CHECKING, Any, Literal

import torch
from ray.util.debug import log_once

from pruning_envs import CascadeTable
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.agents.rllib_env import CASCADE_ID, register_environments
from runtime_pruning.cascades.q_chooser import QNetwork
from runtime_pruning.config import Count, Positive, Share, config_class
from runtime_pruning.resources import AgentResources

if TYPE_CHECKING:  # RLlib takes 1.4 CPU-seconds to import, in vain where no agent learns
    from ray.rllib.algorithms.dqn import DQNConfig


@config_class
class CascadeDQNSettings:
    """Settings of the agent; the measurement behind them is of three ResNets on CIFAR-10.

    Attributes:
        penalty_low, penalty_high: range that episodes' penalties are drawn from, log-uniformly.
        alpha: weight of the answer's loss.
        loss: of the answer.
        reward: when the loss is paid for: at the end, or by gains; the same return but for a
            constant, and no measured difference: docs/lab/choosers-at-equal-cost.md.
        hidden: widths of the hidden layers.
        lr: Adam's learning rate.
        batch: transitions per gradient step.
        training_intensity: transitions trained on per transition sampled.
        replay: capacity in transitions.
        warmup: transitions before the first gradient step.
        env_steps: decisions that the agent learns from, in all.
        explored: share of them over which epsilon falls from 1 to ``epsilon``.
        epsilon: share of random decisions from then on.
        target_update: sampled decisions between updates of the target network.
        images_per_runner: images that each env runner moves at a time.
        seed: of everything random.
    """

    penalty_low: Positive = 0.03
    penalty_high: Positive = 1.0
    alpha: Positive = 1.0
    loss: Literal["cross-entropy", "error"] = "error"
    reward: Literal["final", "gain"] = "final"
    hidden: tuple[Count, ...] = (128, 128)
    lr: Positive = 5e-4
    batch: Count = 512
    training_intensity: Positive = 8.0
    replay: Count = 100_000
    warmup: Count = 2_000
    env_steps: Count = 60_000
    explored: Share = 0.7
    epsilon: Share = 0.1
    target_update: Count = 1_000
    images_per_runner: Count = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.penalty_low > self.penalty_high:
            raise ValueError(
                "`penalty_low <= penalty_high` must hold, but got "
                f"{self.penalty_low} > {self.penalty_high}."
            )


def cascade_config(
    table: CascadeTable, settings: CascadeDQNSettings, resources: AgentResources | None = None
) -> "DQNConfig":
    """Return RLlib's configuration; the table is put into Ray's object store.

    Args:
        table: of the policy split.
        settings: of the agent.
        resources: of env runners and learners; None lets this process sample and learn.
    """
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    asked = AgentResources() if resources is None else resources
    register_environments()
    log_once("DQN_on_new_api_stack")  # spares users RLlib's advice on moving to where we are
    config = DQNConfig()
    config.environment(
        CASCADE_ID,
        env_config={
            "table": ObjectStoreValue(table),
            "penalty": (settings.penalty_low, settings.penalty_high),
            "alpha": settings.alpha,
            "loss": settings.loss,
            "reward": settings.reward,
            "seed": settings.seed,
        },
        normalize_actions=False,
    )
    config.env_runners(
        num_env_runners=asked.env_runner.workers,
        num_envs_per_env_runner=settings.images_per_runner,
        num_cpus_per_env_runner=asked.env_runner.cpus,
        gym_env_vectorize_mode="vector_entry_point",
        rollout_fragment_length=4,
    )
    config.learners(
        num_learners=asked.learner.workers,
        num_cpus_per_learner=asked.learner.cpus,
        num_gpus_per_learner=asked.learner.gpus,
    )
    config.training(
        gamma=1.0,
        lr=settings.lr,
        train_batch_size=settings.batch,
        training_intensity=settings.training_intensity,
        num_steps_sampled_before_learning_starts=settings.warmup,
        target_network_update_freq=settings.target_update,
        double_q=True,
        dueling=True,
        num_atoms=1,
        n_step=1,
        epsilon=[(0, 1.0), (max(1, int(settings.explored * settings.env_steps)), settings.epsilon)],
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.replay},
    )
    config.rl_module(
        model_config=DefaultModelConfig(
            fcnet_hiddens=list(settings.hidden),
            fcnet_activation="relu",
            head_fcnet_hiddens=[],
        )
    )
    config.reporting(min_sample_timesteps_per_iteration=1_000, min_time_s_per_iteration=0)
    config.debugging(seed=settings.seed, log_level="ERROR")
    return config


def train_cascade_dqn(
    table: CascadeTable, settings: CascadeDQNSettings, resources: AgentResources | None = None
) -> QNetwork:
    """Return what RLlib's DQN has learned on a table, in plain torch.

    Ray is started if it has not been. See `cascade_config`.
    """
    algorithm = cascade_config(table, settings, resources).build_algo()
    try:
        sampled = 0
        while sampled < settings.env_steps:
            result = algorithm.train()
            sampled = result["env_runners"]["num_env_steps_sampled_lifetime"]
        return export(algorithm)
    finally:
        algorithm.stop()


def export(algorithm: Any) -> QNetwork:
    """Return a copy of the learner's network, in plain torch, on the CPU."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    weights = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    layers = [
        (place, weights[f"{place}.weight"], weights[f"{place}.bias"])
        for place in (name.removesuffix(".weight") for name in weights if name.endswith(".weight"))
        if place.startswith(("encoder.", "af.", "vf."))
    ]
    trunk = [layer for layer in layers if layer[0].startswith("encoder.")]
    heads = {place.split(".")[0]: (place, *rest) for place, *rest in layers if place[0] != "e"}
    network = QNetwork(
        features=trunk[0][1].shape[1],
        hidden=[weight.shape[0] for _, weight, _ in trunk],
        actions=heads["af"][1].shape[0],
    )
    linear = [module for module in network.trunk if isinstance(module, torch.nn.Linear)]
    for own, (_, weight, bias) in zip(
        [*linear, network.advantage, network.value], [*trunk, heads["af"], heads["vf"]], strict=True
    ):
        own.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return network.eval()
