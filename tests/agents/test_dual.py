"""Multipliers follow what costs exceed their budgets by."""

import numpy as np
import pytest

from runtime_pruning.agents.dual import DualVariables


def test_a_step_by_hand() -> None:
    dual = DualVariables([0.5, 0.2], initial=1.0, lr=0.1)
    assert dual.multipliers == pytest.approx((1.0, 1.0))
    # softplus(x) = 1 at x = log(e - 1) = 0.5413; Adam's first step is its learning rate.
    dual.update([0.6, 0.1])
    expected = np.log1p(np.exp(np.log(np.e - 1) + np.array([0.1, -0.1])))
    assert dual.multipliers == pytest.approx(tuple(expected))


def test_damping_adds_the_last_excess_in_budgets_and_never_goes_below_the_least() -> None:
    plain = DualVariables([0.5], initial=1.0, lr=0.1)
    damped = DualVariables([0.5], initial=1.0, lr=0.1, damping=2.0)
    for dual in (plain, damped):
        dual.update([0.6])  # a fifth above the budget
    assert damped.multipliers[0] == pytest.approx(plain.multipliers[0] + 2 * 0.2)
    damped.update([0.0])  # all of the budget is left: -2 from damping
    assert damped.multipliers == (0.0,)
    floor = DualVariables([0.5], initial=1.0, lr=0.1, damping=9.0, least=0.3)
    floor.update([0.0])
    assert floor.multipliers == (0.3,)


def test_its_state_goes_on_as_if_it_had_never_stopped() -> None:
    one, other = (DualVariables([0.5], initial=1.0, lr=0.1, damping=1.0) for _ in range(2))
    one.update([0.9])
    other.set_state(one.get_state())
    assert other.multipliers == one.multipliers
    one.update([0.4]), other.update([0.4])
    assert other.multipliers == one.multipliers
