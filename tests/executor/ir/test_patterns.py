"""Which steps of a traced network are a pooling that compiled calls know."""

from typing import Any

import pytest
from torch import nn
from torch.nn import functional

from runtime_pruning.executor.ir.patterns import GlobalPool, MaxPool
from runtime_pruning.network.graph import FxCall

MODULES: dict[str, nn.Module] = {
    "one": nn.AdaptiveAvgPool2d(1),
    "seven": nn.AdaptiveAvgPool2d(7),
    "flat": nn.Flatten(),
    "rows": nn.Flatten(2),
}


@pytest.mark.parametrize(
    "module", [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2)]
)
def test_other_pooling_is_left_to_its_module(module: nn.Module) -> None:
    assert not MaxPool.knows(module)


@pytest.mark.parametrize(
    ("pool", "flatten", "known"),
    [
        (("module", "one"), ("module", "flat"), True),
        (("module", "one"), ("method", "flatten", (1,)), True),
        (("function", functional.adaptive_avg_pool2d, ((1, 1),)), ("module", "flat"), True),
        (("module", "seven"), ("module", "flat"), False),
        (("module", "one"), ("module", "rows"), False),
        (("module", "one"), ("method", "flatten", (2,)), False),
        (("function", functional.adaptive_max_pool2d, (1,)), ("module", "flat"), False),
    ],
)
def test_which_steps_are_a_mean_over_pixels(pool: Any, flatten: Any, known: bool) -> None:
    steps = [FxCall("pool", *pool), FxCall("flatten", *flatten)]
    assert GlobalPool.knows(steps, MODULES.__getitem__) is known
    assert not GlobalPool.knows(steps[:1], MODULES.__getitem__)
