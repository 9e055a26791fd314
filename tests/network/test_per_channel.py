"""Per-channel operations: which are known, and how they run on the first channels."""

import operator

import pytest
import torch
from torch import nn
from torch.nn import functional

from runtime_pruning.network.graph import FxCall, Ref
from runtime_pruning.network.per_channel import per_channel, per_channel_call, rule_for


def test_a_rule_is_found_by_the_nearest_base_and_may_be_added() -> None:
    class Doubled(nn.Module):
        pass

    class Own(nn.ReLU):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.cumsum(1)

    assert rule_for(nn.ReLU()) is not None
    assert rule_for(Doubled()) is None
    assert rule_for(Own()) is None  # its forward is another than its base's
    per_channel(Doubled)(lambda module, features, present_BC: 2 * features)
    rule = rule_for(Doubled())
    assert rule is not None
    assert rule(Doubled(), torch.ones(1, 2), None).tolist() == [[2.0, 2.0]]


def test_prelu_takes_the_first_slopes() -> None:
    prelu = nn.PReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.1, 0.2, 0.3]))
    rule = rule_for(prelu)
    assert rule is not None
    found = rule(prelu, -torch.ones(1, 2, 1, 1), None)
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.1, -0.2]))


IMAGE = (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "after", "known"),
    [
        (FxCall("x", "function", functional.relu), IMAGE, True),
        (FxCall("x", "method", "mean", ((2, 3),)), (2, 3), True),
        (FxCall("x", "method", "mean", ((1, 2),)), (2, 4), False),  # over channels
        (FxCall("x", "function", torch.flatten, (1,)), (2, 48), True),
        (FxCall("x", "function", torch.flatten, (2,)), (2, 3, 16), False),
        (FxCall("x", "method", "view", (2, -1)), (2, 48), True),
        (FxCall("x", "method", "softmax", (1,)), IMAGE, False),
        (FxCall("x", "function", operator.mul, (2.0,)), IMAGE, True),
        (FxCall("x", "function", operator.mul, (Ref("y"),)), IMAGE, False),  # a value's own
    ],
)
def test_which_calls_keep_channels_apart(call: FxCall, after: tuple[int, ...], known: bool) -> None:
    assert (per_channel_call(call, IMAGE, after) is not None) is known
