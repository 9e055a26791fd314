"""What a method does with an agent: build, give a backbone, export, save and restore."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ray.util.debug import log_once

from runtime_pruning.agents.decision_network import DecisionNetwork

if TYPE_CHECKING:  # RLlib takes 1.4 CPU-seconds to import, in vain where no agent learns
    from runtime_pruning.agents.dqn import PruningDQN, PruningDQNConfig


def build(config: "PruningDQNConfig") -> "PruningDQN":
    """Return the algorithm, its env runners started."""
    log_once("PruningDQN_on_new_api_stack")  # spares users RLlib's advice on moving to where we are
    algorithm: PruningDQN = config.build_algo()
    return algorithm


def push_backbone(algorithm: "PruningDQN", state_dict: Mapping[str, Any], version: int) -> None:
    """Let all env runners sample on other backbone weights, and see that they do.

    Env runners that are restarted later get the same weights. Episodes on older versions are
    dropped, those that are still to come included.

    Args:
        algorithm: whose env runners are meant.
        state_dict: of the network that the environment runs.
        version: greater than all before.

    Raises:
        ValueError: a version that is not greater.
        ContractError: an env runner that answers with another version.
    """
    if version <= algorithm.backbone_version:
        raise ValueError(
            f"`version > {algorithm.backbone_version}` must hold for a new backbone, but got "
            f"{version}."
        )
    algorithm.push_backbone(state_dict, version)


def export(algorithm: "PruningDQN") -> DecisionNetwork:
    """Return a copy of the learner's decision network, in plain torch, on the CPU."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    weights = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    own = "q_network."
    network = DecisionNetwork(algorithm.config.rl_module_spec.model_config["decision"])
    network.load_state_dict(
        {
            name.removeprefix(own): torch.tensor(value)
            for name, value in weights.items()
            if name.startswith(own)
        }
    )
    return network.eval()


def save(algorithm: "PruningDQN", folder: Path) -> None:
    """Write a checkpoint: learner, optimiser, counters, backbone and, if so set, the replay.

    Network structure and data are not in it.
    """
    algorithm.save_to_path(str(folder.absolute()))


def restore(algorithm: "PruningDQN", folder: Path) -> None:
    """Bring an algorithm that was built alike to the state of a checkpoint."""
    algorithm.restore_from_path(str(folder.absolute()))
