"""Plans that are known beforehand: read by a compiled call or in Python, with the same result."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batching.plans import PlanDecider
from runtime_pruning.executor.native import library

PLANS_BL = torch.tensor([[1, 4, 2], [3, 3, 1], [1, 4, 2], [2, 1, 4]])


@pytest.fixture(params=["compiled", "python"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(library, "_library", lambda: None)
    elif library.take_plans(PLANS_BL, 4) is None:
        pytest.skip("needs a compiler and an x86 CPU")


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda plans_BL: plans_BL,
        lambda plans_BL: plans_BL.T.contiguous().T,
        lambda plans_BL: plans_BL.repeat_interleave(2, 1)[:, ::2],
        lambda plans_BL: plans_BL[2:3],
        lambda plans_BL: plans_BL[0].expand(3, -1),
    ],
)
def test_plans_are_read_in_any_layout(laid_out: Callable[[Tensor], Tensor]) -> None:
    plans_BL = laid_out(PLANS_BL)
    rows = [tuple(row) for row in plans_BL.tolist()]
    found = PlanDecider(plans_BL, 4)
    assert (found.size, found.first, found.rows) == (len(rows), rows[0], rows)
    assert found.alike is (len(set(rows)) == 1)
    assert found(1, lambda: torch.empty(0)) == plans_BL[:, 1].tolist()
    part = found.part(0, 1, 2)
    assert (part.rows, part.alike) == ([rows[0][:2]], True)


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 2)])
@pytest.mark.parametrize("wrong", [0, 5, -(2**40)])
def test_a_count_out_of_range_is_named(wrong: int, rows: slice) -> None:
    plans_BL = PLANS_BL.clone()
    plans_BL[1, 2] = wrong
    with pytest.raises(ConfigError, match=rf"3 counts in \[1, 4\] .* got \(3, 3, {wrong}\)"):
        PlanDecider(plans_BL[rows], 4)


@pytest.mark.usefixtures("reads")
def test_no_images_are_no_plans() -> None:
    with pytest.raises(ConfigError, match=r"3 counts in \[1, 4\] are needed, but got \(\)"):
        PlanDecider(PLANS_BL[:0], 4)


@pytest.mark.usefixtures("reads")
def test_what_was_read_stays_when_the_tensor_changes() -> None:
    plans_BL = PLANS_BL.clone()
    found = PlanDecider(plans_BL, 4)
    plans_BL.zero_()
    assert found.rows == [tuple(row) for row in PLANS_BL.tolist()]
