"""A trained decision network as policies that a prunable network asks site by site.

Dimensions: B images, F features, G groups.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from runtime_pruning.agents.decision_network import DecisionNetwork, State
from runtime_pruning.agents.deployed_decision import DeployedDecisionPolicy


class DecisionPolicy:
    """Chooses, per image, the number of groups with the greatest value; the fewest of equals.

    Args:
        network: trained; it is switched to inference behaviour.
        penalty: what the network is told that a unit of cost is worth, at least 0.

    Raises:
        ValueError: a penalty below zero.
    """

    def __init__(self, network: DecisionNetwork, penalty: float) -> None:
        if not 0 <= penalty < float("inf"):
            raise ValueError(f"`0 <= penalty < inf` must hold, but got {penalty}.")
        self.network = network.eval()
        self.penalty = penalty
        self.name = f"decision network at penalty {penalty:g}"
        self.macs_per_image = network.macs_per_image

    def deploy(self) -> DeployedDecisionPolicy:
        """Return what chooses the same, faster; what the network learns later, it ignores."""
        return DeployedDecisionPolicy(self.network, self.penalty, self.name)

    def start(self, batch: int) -> "DecisionChooser":
        """Return what decides for the next ``batch`` images."""
        return DecisionChooser(self.network, torch.full((batch,), self.penalty))


class SpreadPolicy:
    """A conditioned network whose images are each told a penalty of their own.

    What a backbone learns under when one agent is to serve all penalties.

    Args:
        network: trained; it is switched to inference behaviour.
        draw: returns ``penalty_B``, float32, for so many images.
    """

    name = "decision network at many penalties"

    def __init__(self, network: DecisionNetwork, draw: Callable[[int], Tensor]) -> None:
        self.network = network.eval()
        self.macs_per_image = network.macs_per_image
        self._draw = draw

    def start(self, batch: int) -> "DecisionChooser":
        """Return what decides for the next ``batch`` images."""
        return DecisionChooser(self.network, self._draw(batch))


class DecisionChooser:
    """Decides for one batch of images, sites in order, where their features are.

    The network moves there if it is elsewhere, and stays.
    """

    def __init__(self, network: DecisionNetwork, penalty_B: Tensor) -> None:
        self._network = network
        self._penalty_B = penalty_B
        self._previous_B = torch.zeros(len(penalty_B), dtype=torch.int64)
        self._state: State | None = None

    @torch.inference_mode()
    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``, int64 in [1, groups], on the device of the features."""
        if self._state is None:
            self._state = self._begin(features_BF.device)
        q_BG, self._state = self._network.step(
            site, features_BF, self._previous_B, self._penalty_B, self._state
        )
        self._previous_B = q_BG.argmax(1) + 1
        return self._previous_B

    def _begin(self, device: torch.device) -> State:
        """Return the state before the first site, with everything on a device."""
        if self._network.decode_LHG.device != device:
            self._network.to(device)
        self._penalty_B = self._penalty_B.to(device)
        self._previous_B = self._previous_B.to(device)
        return self._network.initial_state(len(self._penalty_B))
