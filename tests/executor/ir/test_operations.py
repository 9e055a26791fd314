"""Parts of operations."""

import math

import pytest
import torch
from torch import nn

from runtime_pruning.executor.ir.operations import NOTHING, Activation, TypedModule


@pytest.mark.parametrize(
    ("activation", "limits", "nonnegative"),
    [
        (NOTHING, (-math.inf, math.inf), False),
        (Activation("relu"), (0.0, math.inf), True),
        (Activation("hardtanh", (0.0, 6.0)), (0.0, 6.0), True),
        (Activation("hardtanh", (-1.0, 1.0)), (-1.0, 1.0), False),
    ],
)
def test_limits_of_activations(
    activation: Activation, limits: tuple[float, float], nonnegative: bool
) -> None:
    assert (activation.limits, activation.nonnegative) == (limits, nonnegative)
    values = torch.tensor([-2.0, 0.5, 9.0])
    assert activation.apply_(values.clone()).tolist() == values.clamp(*limits).tolist()


def test_a_module_meets_features_of_any_type() -> None:
    prelu = nn.PReLU()
    typed = TypedModule(prelu)
    assert typed.of(torch.float32) is prelu
    assert typed.of(torch.bfloat16).weight.dtype == torch.bfloat16
    assert typed.of(torch.bfloat16) is typed.of(torch.bfloat16)
    assert prelu.weight.dtype == torch.float32
    relu = nn.ReLU()
    assert TypedModule(relu).of(torch.bfloat16) is relu  # it has no numbers
