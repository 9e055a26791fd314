"""The environments by name in RLlib, and what their ``env_config`` holds.

    register_environments()
    PPOConfig().environment(
        "RuntimePruning-v0",
        env_config={"backbone": "digits-cnn", "dataset": "digits", "penalty": 0.1},
    )

An ``env_config`` travels to every env runner. It names what they build for themselves (plain
values, as above), or holds it: small things as they are, big ones as `ObjectStoreValue`.

| key | what |
|---|---|
| ``backbone``, ``dataset``, ... | names and settings: the fields of `NamedProblem` |
| ``network``, ``data``, ``step_cost``, ``split`` | in place of the names, see `make_environment` |
| ``flatten`` | one array per observation, as RLlib's own networks want it (default); false leaves the dictionary |
| all others | settings of `RuntimePruningVectorEnv` |
"""  # noqa: E501

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from numpy.typing import NDArray
from ray import tune
from safetensors.torch import load_file

from pruning_envs import (
    CascadeEnv,
    CascadeVectorEnv,
    NetworkPruningEnv,
    PenaltyRange,
    RuntimePruningEnv,
    RuntimePruningVectorEnv,
)
from runtime_pruning import backbones, cost, datasets
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.config import build_config
from runtime_pruning.network import PrunableNetwork, trace

ENV_ID, CASCADE_ID, NETWORK_ID = "RuntimePruning-v0", "Cascade-v0", "NetworkPruning-v0"


def register_environments() -> None:
    """Let RLlib know the environments by their gymnasium names.

    RLlib keeps names in the cluster: a process that joins another one registers anew.
    """
    tune.register_env(ENV_ID, make_environment)
    tune.register_env(CASCADE_ID, make_cascade)
    tune.register_env(NETWORK_ID, make_network_pruning)


@dataclass(frozen=True, kw_only=True)
class NamedProblem:
    """A network to prune and images to be rewarded on, in plain values.

    Attributes:
        backbone, dataset: registered names.
        groups, align, streams: of the network, see `trace`.
        pretrained: with the family's published weights.
        weights: a safetensors file of the backbone's weights, such as a sweep's preparation writes.
        data_dir: folder with the data; None asks ``RUNTIME_PRUNING_DATA``.
        dataset_settings: of the dataset.
        split: that the rewards come from. The backbone has memorised the training split.
        cost: registered name of what a decision costs.
    """

    backbone: str
    dataset: str
    groups: int = 4
    align: int = 8
    streams: bool = True
    pretrained: bool = False
    weights: Path | None = None
    data_dir: Path | None = None
    dataset_settings: dict[str, Any] = field(default_factory=dict, hash=False)
    split: Literal["policy", "training"] = "policy"
    cost: str = "macs"

    def make(self) -> dict[str, Any]:
        """Return ``network``, ``images``, ``labels`` and ``step_cost`` of an environment."""
        data = datasets.load(self.dataset, self.data_dir, self.dataset_settings)
        backbone = backbones.create(
            self.backbone,
            num_classes=len(data.info.classes),
            image_shape=data.info.image_shape,
            pretrained=self.pretrained,
        )
        network: PrunableNetwork = trace(
            backbone,
            data.info.image_shape,
            groups=self.groups,
            align=self.align,
            streams=self.streams,
        )
        if self.weights is not None:
            network.load_backbone(load_file(self.weights))
        images = getattr(data, self.split)
        return {
            "network": network,
            "images": images.images_NCHW,
            "labels": images.labels_N,
            "step_cost": cost.get(self.cost)(network),
        }


NAMES = {each.name for each in fields(NamedProblem)}


@functools.lru_cache(maxsize=2)
def _made(problem: NamedProblem) -> dict[str, Any]:
    """Return what names stand for, made once for all environments of a process."""
    return problem.make()


def env_config(problem: PruningProblem) -> dict[str, Any]:
    """Return the ``env_config`` of a problem: what is big lies in Ray's object store."""
    cost_of_steps = problem.step_cost
    return {
        "network": ObjectStoreValue(problem.network),
        "data": ObjectStoreValue(problem.data),
        "split": problem.split,
        "penalty": PenaltyRange.of(problem.penalty),
        "alpha": problem.alpha,
        "loss": problem.loss,
        "step_cost": None if cost_of_steps is None else ObjectStoreValue(cost_of_steps),
        "mode": problem.mode,
        "seed": problem.seed,
        "device": problem.env_device,
    }


def make_environment(settings: Mapping[str, Any]) -> gym.Env[Any, Any] | gym.vector.VectorEnv:
    """Return the environment of an ``env_config``: what RLlib calls in each env runner.

    Args:
        settings: see the head of this file. In place of names: ``network``, or a function that
            returns one; ``data``, whatever has images_NCHW and labels_N, or has it under the name
            ``split``; ``step_cost``; each as it is or as `ObjectStoreValue`. With ``num_envs``,
            which RLlib adds in its mode ``vector_entry_point``, the vector environment is made.

    Raises:
        ConfigError: a name that does not exist.
        ValueError: there is no data, as in a configuration that came out of a checkpoint.
    """
    plain = {name: _value(value) for name, value in settings.items()}
    flatten = plain.pop("flatten", True)
    plain |= _by_name(plain) if "backbone" in plain else _by_value(plain)
    if "num_envs" in plain:
        batch = RuntimePruningVectorEnv(**plain)
        return _flat_batch(batch) if flatten else batch
    single = RuntimePruningEnv(**plain)
    return _flat(single) if flatten else single


def make_cascade(settings: Mapping[str, Any]) -> gym.Env[Any, Any] | gym.vector.VectorEnv:
    """Return the cascade of an ``env_config``: settings of `CascadeVectorEnv`.

    Args:
        settings: the table as it is or as `ObjectStoreValue`. With ``num_envs``, which RLlib adds
            in its mode ``vector_entry_point``, the vector environment is made.
    """
    plain = {name: _value(value) for name, value in settings.items()}
    return CascadeVectorEnv(**plain) if "num_envs" in plain else CascadeEnv(**plain)


def make_network_pruning(settings: Mapping[str, Any]) -> NetworkPruningEnv:
    """Return the environment of an ``env_config``: settings of `NetworkPruningEnv`.

    Args:
        settings: network and costs as they are or as `ObjectStoreValue`.
    """
    return NetworkPruningEnv(**{name: _value(value) for name, value in settings.items()})


def _value(value: Any) -> Any:
    """Return what a value of an ``env_config`` stands for."""
    return value.get() if isinstance(value, ObjectStoreValue) else value


def _by_name(plain: dict[str, Any]) -> dict[str, Any]:
    """Take the names out of ``plain``, and return what they stand for."""
    named = {name: plain.pop(name) for name in NAMES & plain.keys()}
    return _made(build_config(NamedProblem, named, where="env_config"))


def _by_value(plain: dict[str, Any]) -> dict[str, Any]:
    """Take the data out of ``plain``, and return it as an environment wants it."""
    data, split = plain.pop("data", None), plain.pop("split", None)
    if data is None or "network" not in plain:
        raise ValueError(
            "An `env_config` must name `backbone` and `dataset`, or hold `network` and `data`. "
            "Checkpoints hold no network and no data: build the algorithm anew, then restore it."
        )
    images = getattr(data, split) if split else data
    return {"images": images.images_NCHW, "labels": images.labels_N}


def _flat(env: RuntimePruningEnv) -> gym.Env[Any, Any]:
    flat = wrappers.FlattenObservation(env)
    return wrappers.TransformObservation(flat, _float32, _float32_space(flat.observation_space))


def _flat_batch(env: RuntimePruningVectorEnv) -> gym.vector.VectorEnv:
    flat = wrappers.vector.FlattenObservation(env)
    return wrappers.vector.TransformObservation(
        flat, _float32, single_observation_space=_float32_space(flat.single_observation_space)
    )


def _float32(observation: NDArray[Any]) -> NDArray[np.float32]:
    return observation.astype(np.float32)


def _float32_space(space: Any) -> gym.spaces.Box:
    """Return the same box in float32: one-hot columns beside floats make gymnasium's float64."""
    return gym.spaces.Box(_float32(space.low), _float32(space.high))
