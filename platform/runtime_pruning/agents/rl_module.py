"""The decision network as RLlib's DQN wants to see it.

RLlib knows this module as stateless: its own connectors would cut episodes into pieces and carry
stale states. Whoever acts with it hands the state on (`BatchedEnvRunner`), and whoever trains it
gives whole episodes, so that one unroll from the first site yields every value of the loss.

Dimensions: B images or episodes, L sites, G groups.
"""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.targets import bootstrap

QF_PREDS, QF_NEXT, QF_TARGET_NEXT = "qf_preds", "qf_next_preds", "qf_target_next_preds"


class RNPModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):  # type: ignore[misc]
    """A `DecisionNetwork` with epsilon-greedy exploration and a target network.

    Its ``model_config`` holds ``decision`` (a `DecisionConfig`), ``epsilon`` (an
    `EpsilonSchedule`) and ``n_step``.
    """

    def setup(self) -> None:
        """Build the network that acts; the learner adds the target network."""
        decision: DecisionConfig = self.model_config["decision"]
        self.epsilon: EpsilonSchedule = self.model_config["epsilon"]
        self.n_step: int = self.model_config["n_step"]
        self.q_network = DecisionNetwork(decision)

    def make_target_networks(self) -> None:
        """Copy the network that acts."""
        self._target_q_network = make_target_network(self.q_network)

    def standardise(self, features_BLF: Tensor) -> None:
        """Standardise features alike in the network that acts and in its target."""
        self.q_network.standardise(features_BLF)
        self._target_q_network.standardise(features_BLF)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the network that acts with its target."""
        return [(self.q_network, self._target_q_network)]

    def get_non_inference_attributes(self) -> list[str]:
        """Name what env runners do without."""
        return ["_target_q_network"]

    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``q_BLG`` of whole episodes."""
        return {QF_PREDS: _unroll(self.q_network, batch)}

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the target network's ``q_BLG`` of whole episodes."""
        return {QF_PREDS: _unroll(self._target_q_network, batch)}

    def _forward_inference(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the greedy ``actions`` at one site, and the state to hand on.

        The batch holds ``site`` (an int: all images stand there), ``state_in`` and, under ``obs``,
        ``features``, ``previous_groups`` and ``penalty``.
        """
        if "state_in" not in batch:
            raise ValueError("This module acts with a state only: sample with BatchedEnvRunner.")
        obs = batch[Columns.OBS]
        decision = self.q_network.step(
            batch["site"],
            obs["features"],
            obs["previous_groups"],
            obs["penalty"],
            batch["state_in"],
        )
        return {Columns.ACTIONS: decision.q_BG.argmax(1), "state_out": decision.state}

    def _forward_exploration(
        self,
        batch: dict[str, Any],
        t: int = 0,
        generator: torch.Generator | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Return actions of which the schedule's share is random.

        Args:
            batch: see `_forward_inference`.
            t: decisions so far, over all env runners.
            generator: of the random choices, on the device of the actions.
        """
        out = self._forward_inference(batch)
        greedy_B = out[Columns.ACTIONS]
        where = {"device": greedy_B.device, "generator": generator}
        chance_B = torch.rand(greedy_B.shape, **where)
        groups = self.q_network.config.groups
        random_B = torch.randint(groups, greedy_B.shape, **where)
        if batch["site"] < self.q_network.config.decides_from:
            return out
        out[Columns.ACTIONS] = torch.where(chance_B < self.epsilon.at(t), random_B, greedy_B)
        return out

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Return all values of the loss for whole episodes: one unroll of each network."""
        q_BLG = _unroll(self.q_network, batch)
        with torch.no_grad():
            target_BLG = _unroll(self._target_q_network, batch)
        return {
            QF_PREDS: q_BLG,
            QF_NEXT: bootstrap(q_BLG.detach(), self.n_step),
            QF_TARGET_NEXT: bootstrap(target_BLG, self.n_step),
        }


def _unroll(network: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Return ``q_BLG`` of the batch's episodes."""
    obs = batch[Columns.OBS]
    q_BLG: Tensor = network(obs["features"], obs["previous_groups"], obs["penalty"])
    return q_BLG
