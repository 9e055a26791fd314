"""A Gaussian policy with two critics, one of reward and one of costs, for constrained PPO.

Dimensions: B steps, F numbers of an observation, A numbers of an action, K costs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn


class LagrangianModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):  # type: ignore[misc]
    """Three small networks that share nothing; the deviation is a parameter, not a function.

    Actions fill [-1, 1] and are cut there. The means stay inside: beyond the ends all actions
    would be alike, and none of them would teach the policy the way back.

    Its ``model_config`` holds ``hidden`` (widths of each network's hidden layers), ``log_std``
    (of the policy at first, where actions fill [-1, 1]) and ``costs`` (K).
    """

    def setup(self) -> None:
        """Build the networks."""
        (width,), (actions,) = self.observation_space.shape, self.action_space.shape
        hidden = self.model_config["hidden"]
        self.policy = _network(width, hidden, actions)
        self.log_std = nn.Parameter(torch.full((actions,), float(self.model_config["log_std"])))
        self.reward_critic = _network(width, hidden, 1)
        self.cost_critic = _network(width, hidden, self.model_config["costs"])

    def get_non_inference_attributes(self) -> list[str]:
        """Name what env runners do without."""
        return ["reward_critic", "cost_critic"]

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Return means and logarithms of deviations, as RLlib's Gaussian wants them."""
        mean_BA = torch.tanh(self.policy(batch[Columns.OBS]))
        inputs = torch.cat([mean_BA, self.log_std.expand_as(mean_BA)], dim=-1)
        return {Columns.ACTION_DIST_INPUTS: inputs}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return ``value_B`` of the reward."""
        value_B: Tensor = self.reward_critic(batch[Columns.OBS]).squeeze(-1)
        return value_B

    def compute_cost_values(self, batch: dict[str, Any]) -> Tensor:
        """Return ``value_BK`` of the costs."""
        value_BK: Tensor = self.cost_critic(batch[Columns.OBS])
        return value_BK


def _network(width: int, hidden: Sequence[int], out: int) -> nn.Sequential:
    """Return a perceptron with tanh; what it says at first is near 0."""
    widths = [width, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    last = nn.Linear(widths[-1], out)
    with torch.no_grad():
        last.weight.mul_(0.01)
        last.bias.zero_()
    return nn.Sequential(*layers, last)
