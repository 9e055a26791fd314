"""Multipliers of constraints, learned by gradient ascent: what a unit of excess is worth.

Source: Malik et al. 2022, as in the released code: nu = softplus(x), Adam on x, one step a rollout.
That alone swings about the budget, since the policy answers late. A damping term, the proportional
one of Stooke et al. 2020, adds what the last rollout exceeded: nu = max(softplus(x) + d excess, 0).
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class DualVariables:
    """K multipliers; each rises while its cost exceeds its budget, and falls while it does not.

    Args:
        budgets: of the K costs, above 0.
        initial: multipliers at first, above 0.
        lr: Adam's learning rate.
        least: that no multiplier falls below.
        damping: what the last rollout's excess, counted in budgets, adds to a multiplier.
    """

    def __init__(
        self,
        budgets: Sequence[float],
        *,
        initial: float,
        lr: float,
        least: float = 0.0,
        damping: float = 0.0,
    ) -> None:
        self._budget_K = torch.tensor(list(budgets), dtype=torch.float64)
        start = float(np.log(np.expm1(initial)))
        self._x_K = torch.full_like(self._budget_K, start, requires_grad=True)
        self._least = least
        self._damping = damping
        self._excess_K = torch.zeros_like(self._budget_K)
        self._adam = torch.optim.Adam([self._x_K], lr=lr)

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The K multipliers."""
        damped_K = self._nu_K() + self._damping * self._excess_K
        return tuple(damped_K.clamp(min=self._least).tolist())

    def update(self, cost_K: Sequence[float] | np.ndarray[Any, Any]) -> None:
        """Take one step on mean episode costs; what exceeds a budget is counted in budgets."""
        excess_K = torch.as_tensor(np.asarray(cost_K, np.float64)) / self._budget_K - 1
        self._excess_K = excess_K
        self._adam.zero_grad()
        (-(self._nu_K() * excess_K).sum()).backward()  # type: ignore[no-untyped-call]
        self._adam.step()

    def get_state(self) -> dict[str, Any]:
        """Return variables and optimiser."""
        values = {"x": self._x_K.detach().clone(), "excess": self._excess_K.clone()}
        return {**values, "adam": copy.deepcopy(self._adam.state_dict())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        with torch.no_grad():
            self._x_K.copy_(state["x"])
        self._excess_K = state["excess"].clone()
        self._adam.load_state_dict(copy.deepcopy(state["adam"]))

    def _nu_K(self) -> Tensor:
        return functional.softplus(self._x_K)
