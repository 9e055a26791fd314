"""Steps on the slots of a state."""

import operator

import torch
from torch import nn

from runtime_pruning.executor.ir.operations import Operation
from runtime_pruning.executor.program.steps import (
    Mask,
    adding,
    casting,
    following,
    masking,
    of_one_type,
    opaque,
)
from runtime_pruning.network.graph import FxCall, Ref, Value, Width

X, Y, Z = (Value(name, Width(2)) for name in "xyz")
SLOTS = {"x": 0, "y": 1, "z": 2}


def test_an_add_puts_the_narrower_on_the_first_channels_of_the_wider() -> None:
    state = [torch.ones(1, 2, 1, 1), torch.full((1, 3, 1, 1), 2.0), None]
    adding(Operation("add", (X, Y), Z), SLOTS)(state)
    assert state[2] is not None
    assert state[2].flatten().tolist() == [3.0, 3.0, 2.0]
    assert state[1] is not None
    assert state[1].flatten().tolist() == [2.0, 2.0, 2.0]  # what was read stays


def test_an_operation_of_which_nothing_is_known_runs_as_it_was_traced() -> None:
    step = FxCall("z", "function", operator.sub, (Ref("x"), Ref("y")))
    state = [torch.tensor([5.0]), torch.tensor([3.0]), None]
    opaque(Operation("opaque", (X, Y), Z, step=step), SLOTS)(state)
    assert state[2] == torch.tensor([2.0])


def test_values_are_cast_followed_and_masked_in_place_of_themselves() -> None:
    state = [
        torch.tensor([[1.0, -2.0]]),
        None,
        None,
        {frozenset({0}): Mask(1, torch.tensor([[True, False]]))},
    ]
    casting(0, torch.float64)(state)
    assert state[0].dtype == torch.float64  # type: ignore[union-attr]
    following(0, [torch.neg, torch.relu])(state)
    assert state[0].tolist() == [[0.0, 2.0]]  # type: ignore[union-attr]
    masking(0, Value("x", Width(2, frozenset({0}))))(state)
    assert state[0].tolist() == [[0.0, 0.0]]  # type: ignore[union-attr]


def test_arguments_of_an_unknown_operation_have_one_type() -> None:
    half, whole = torch.ones(2, dtype=torch.bfloat16), torch.ones(2)
    args, kwargs = of_one_type([half, 3, torch.tensor(1)], {"other": whole})
    assert [args[0].dtype, args[1], args[2].dtype] == [torch.float32, 3, torch.int64]
    assert kwargs["other"] is whole
    alike = [half, half]
    assert of_one_type(alike, {})[0] is alike


def test_a_module_of_which_nothing_is_known_takes_features_of_any_type() -> None:
    linear = nn.Linear(2, 3)
    step = FxCall("z", "module", "linear", (Ref("x"),))
    state = [torch.ones(1, 2, dtype=torch.bfloat16), None, None]
    opaque(Operation("opaque", (X,), Z, step=step, module=linear), SLOTS)(state)
    assert state[2] is not None
    assert (state[2].shape, state[2].dtype) == ((1, 3), torch.bfloat16)
