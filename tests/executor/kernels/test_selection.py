"""Of the calls that can run a layer the fastest is taken; all of them mean the same."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from native_calls import drawn, near
from runtime_pruning.executor.ir.operations import Activation, Geometry, Layer
from runtime_pruning.executor.kernels import selection
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
    CompiledLinear,
    compiled_functions,
)
from runtime_pruning.executor.native import memory, packing

GEOMETRY = Geometry((1, 1), (1, 1), (1, 1))
RELU = Activation("relu")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls among which the fastest is to be found; the last is taken for it."""
    found: list[Any] = []

    def last(calls: list[Any], *inputs: object, head_start: list[float]) -> Any:
        found[:] = zip(calls, head_start, strict=True)
        return calls[-1]

    monkeypatch.setattr(selection, "fastest", last)
    return found


def layer() -> Layer:
    torch.manual_seed(0)
    weight = drawn(8, 4, 3, 3, dtype=torch.float32) / 6
    return Layer(weight, drawn(8, dtype=torch.float32), GEOMETRY, 1)


def test_our_convolution_has_a_head_start(taken: list[Any]) -> None:
    features = memory.channels_last(drawn(2, 4, 6, 6, dtype=torch.float32))
    if compiled_functions(features) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    own = layer()
    call = selection.convolution(own, RELU, features, fused=True)
    assert isinstance(call, CompiledConvolution)
    assert [start for _, start in taken] == [0.0, selection.IN_BUFFER]
    expected = functional.conv2d(features, own.weight, own.bias, padding=1).relu()
    near(call(features), expected)
    near(taken[0][0](features), expected)


def test_unfused_the_plain_call_is_all_there_is(taken: list[Any]) -> None:
    features, own = drawn(2, 4, 6, 6, dtype=torch.float32), layer()
    found = selection.convolution(own, RELU, features, fused=False)(features)
    near(found, functional.conv2d(features, own.weight, own.bias, padding=1).relu())
    onto = drawn(2, 8, 6, 6, dtype=torch.float32)
    expected = (onto + functional.conv2d(features, own.weight, own.bias, padding=1)).relu()
    add = selection.convolution_onto(own, RELU, features, room=8, fused=False)
    near(add(features, onto), expected)
    assert taken == []


@pytest.mark.parametrize("ours", [False, True])
def test_linear_layers_are_ours_where_they_are_packed(ours: bool, taken: list[Any]) -> None:
    features = drawn(3, 12, dtype=torch.float32)
    if ours and compiled_functions(features) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    weight, bias = drawn(5, 12, dtype=torch.float32), drawn(5, dtype=torch.float32)
    packed = packing.packed_linear(weight, bias) if ours else None
    call = selection.linear(Layer(weight, bias, None, 1), packed, features)
    assert isinstance(call, CompiledLinear) is ours
    assert len(taken) == 1 + ours
    near(call(features), functional.linear(features, weight, bias))
