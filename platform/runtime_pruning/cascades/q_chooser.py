"""What a DQN agent has learned about who runs next, in plain torch: no Ray, no RLlib.

Dimensions: B images, F features, A actions (stop, or run one of the members).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pruning_envs.cascade_env import observe
from runtime_pruning.cascades.choosing import Ints
from runtime_pruning.errors import ConfigError


class QNetwork(nn.Module):
    """A multilayer perceptron with dueling heads (Wang et al., 2016).

    Args:
        features: width of an observation, the penalty's logarithm included.
        hidden: widths of the hidden layers, each followed by a ReLU.
        actions: stop, and one per member.
    """

    def __init__(self, features: int, hidden: Sequence[int], actions: int) -> None:
        super().__init__()
        self.widths = (features, *hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(self.widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.advantage = nn.Linear(self.widths[-1], actions)
        self.value = nn.Linear(self.widths[-1], 1)

    def forward(self, observation_BF: Tensor) -> Tensor:
        """Return ``values_BA``: expected returns of the actions."""
        hidden_BF = self.trunk(observation_BF)
        advantage_BA: Tensor = self.advantage(hidden_BF)
        values_BA: Tensor = self.value(hidden_BF) + advantage_BA - advantage_BA.mean(1, True)
        return values_BA

    @property
    def macs_per_image(self) -> int:
        """MACs of one decision."""
        inner = sum(wide * narrow for wide, narrow in pairwise(self.widths))
        return inner + self.widths[-1] * (self.advantage.out_features + 1)


@dataclass(frozen=True)
class QChooser:
    """The agent at one penalty: one network, the whole curve.

    Attributes:
        network: trained over a range of penalties.
        penalty: what it is told that a unit of cost is worth.
    """

    network: QNetwork
    penalty: float

    def __post_init__(self) -> None:
        if not 0 < self.penalty < float("inf"):
            raise ConfigError(f"`0 < penalty < inf` must hold, but got {self.penalty}.")

    @property
    def macs_per_image(self) -> int:
        """MACs of one decision."""
        return self.network.macs_per_image

    @torch.inference_mode()
    def actions(self, features_BF: npt.NDArray[np.float32], sets_B: Ints) -> Ints:
        """Return ``action_B``; see `Chooser`."""
        seen_BF = observe(features_BF, np.full(len(sets_B), self.penalty))
        chosen_B: Ints = self.network(torch.from_numpy(seen_BF)).argmax(1).numpy()
        return chosen_B
