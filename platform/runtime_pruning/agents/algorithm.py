"""What every RLlib algorithm needs to train an agent that prunes: the backbone, and the way out.

`PruningAlgorithm` is mixed into a subclass of an RLlib algorithm whose env runners are
`BatchedEnvRunner` and whose module keeps its `DecisionNetwork` under the name ``q_network``.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.util.debug import log_once

from runtime_pruning import glossary
from runtime_pruning.agents.base import OnIteration
from runtime_pruning.agents.decision_network import DecisionNetwork
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.errors import ContractError

LEARNER, MODULE = "learner", "rl_module"


def build(config: AlgorithmConfig) -> Any:
    """Return the algorithm, its env runners and learners started."""
    # Spares users RLlib's advice on moving to where we are.
    log_once(f"{config.algo_class.__name__}_on_new_api_stack")
    return config.build_algo()


class StoredAlgorithm(Algorithm):  # type: ignore[misc]
    """An RLlib algorithm whose checkpoints hold nothing that lies in the cluster's store."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the configuration without network and data, which lie in this cluster's store."""
        (state,), kwargs = super().get_ctor_args_and_kwargs()
        plain = {
            name: value
            for name, value in state["env_config"].items()
            if not isinstance(value, ObjectStoreValue)
        }
        return (state | {"env_config": plain},), kwargs


class PruningAlgorithm(StoredAlgorithm):
    """An RLlib algorithm that is an `Agent`.

    Attributes:
        network_name: of the decision network in the module.
        backbone: the weights that env runners run, None while they are the first.
        backbone_version: of these weights.
    """

    network_name: ClassVar[str] = "q_network"
    backbone: Mapping[str, Any] | None
    backbone_version: int

    def setup(self, config: AlgorithmConfig) -> None:
        """Build RLlib's parts."""
        super().setup(config)
        self.backbone = None
        self.backbone_version = 0

    @property
    def env_steps(self) -> int:
        """Decisions made so far, over all env runners, before a restored checkpoint included."""
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        return int(steps)

    def learn(self, episodes: int, on_iteration: OnIteration | None = None) -> None:
        """Train until the env runners have moved that many more images through the network."""
        at_once = self.config.num_envs_per_env_runner * max(1, self.config.num_env_runners)
        for _ in range(math.ceil(episodes / at_once)):
            result = self.train()
            if on_iteration is not None:
                on_iteration(self.env_steps, self._readings(result))

    def _readings(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return what an iteration's result says, by names of the glossary."""
        sampled = result.get(ENV_RUNNER_RESULTS, {})
        learned = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
        epsilon = self.config.rl_module_spec.model_config.get("epsilon")
        found = {
            glossary.AGENT_RETURN.name: sampled.get(EPISODE_RETURN_MEAN),
            glossary.AGENT_LOSS.name: learned.get("total_loss"),
            glossary.AGENT_EPSILON.name: None if epsilon is None else epsilon.at(self.env_steps),
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def decision_network(self) -> DecisionNetwork:
        """Return a copy of the learner's decision network, in plain torch, on the CPU."""
        weights = self.learner_group.get_weights()[DEFAULT_MODULE_ID]
        own = f"{self.network_name}."
        network = DecisionNetwork(self.config.rl_module_spec.model_config["decision"])
        network.load_state_dict(
            {
                name.removeprefix(own): torch.tensor(value)
                for name, value in weights.items()
                if name.startswith(own)
            }
        )
        return network.eval()

    # -- the backbone -----------------------------------------------------------------------

    def push_backbone(self, state_dict: Mapping[str, Any], version: int) -> None:
        """Let all env runners sample on other backbone weights, and see that they do.

        Env runners that are restarted later get the same weights. Episodes on older versions are
        dropped, those that are still to come included.

        Args:
            state_dict: of the network that the environment runs.
            version: greater than all before.

        Raises:
            ValueError: a version that is not greater.
            ContractError: an env runner that answers with another version.
        """
        if version <= self.backbone_version:
            raise ValueError(
                f"`version > {self.backbone_version}` must hold for a new backbone, but got "
                f"{version}."
            )
        self._set_backbone(state_dict, version)

    def _set_backbone(self, state_dict: Mapping[str, Any], version: int) -> None:
        """Take other backbone weights, older ones included."""
        self.backbone = {name: value.detach().cpu().clone() for name, value in state_dict.items()}
        self.backbone_version = version
        self.forget_episodes()
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                self._send_backbone(group, None)

    def forget_episodes(self) -> None:
        """Drop what was sampled on another backbone than the present one, if any is kept."""

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

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, and the backbone."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        own = {"backbone": self.backbone, "backbone_version": self.backbone_version}
        return state | {"pruning": own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        super().set_state(state)
        own = state.get("pruning")
        if own is not None and own["backbone"] is not None:
            self._set_backbone(own["backbone"], own["backbone_version"])

    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        """Restore, and wait until all env runners act with the restored weights.

        RLlib sends them without waiting, and runners refuse weights older than their own.
        """
        super().restore_from_path(path, *args, **kwargs)
        state = self.learner_group.get_state(components=f"{LEARNER}/{MODULE}", inference_only=True)[
            LEARNER
        ]
        shared: ObjectStoreValue[dict[str, Any]] = ObjectStoreValue(state)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.replace_module_state(shared.get()))
