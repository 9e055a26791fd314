"""oneDNN's fused calls do what a convolution and what follows it do."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from native_calls import drawn
from runtime_pruning.executor.ir.operations import NOTHING, Activation, Geometry, Layer
from runtime_pruning.executor.kernels.onednn import (
    by_onednn,
    by_onednn_onto,
    fused_calls_exist,
    onednn_runs,
    plain_convolution,
)
from runtime_pruning.executor.native import memory

GEOMETRIES = {
    "plain": (Geometry((1, 1), (1, 1), (1, 1)), 1),
    "strided": (Geometry((2, 1), (0, 1), (1, 1)), 1),
    "dilated": (Geometry((1, 1), (2, 2), (2, 2)), 1),
    "grouped": (Geometry((1, 1), (1, 1), (1, 1)), 4),
}
DTYPES = [torch.float32, torch.bfloat16]
RELU, CLAMPED = Activation("relu"), Activation("hardtanh", (0.0, 1.0))


def layer_like(name: str, dtype: torch.dtype) -> tuple[Layer, Tensor, Tensor]:
    """Return a layer, what it reads, and its result by PyTorch's call in float32."""
    torch.manual_seed(0)
    geometry, groups = GEOMETRIES[name]
    weight, bias = drawn(12, 8 // groups, 3, 3, dtype=dtype) / 8, drawn(12, dtype=dtype)
    features = memory.channels_last(drawn(2, 8, 7, 9, dtype=dtype))
    expected = functional.conv2d(
        *(features.float(), weight.float(), bias.float()),
        *(geometry.stride, geometry.padding, geometry.dilation, groups),
    )
    return Layer(weight, bias, geometry, groups), features, expected


def near(found: Tensor, expected: Tensor) -> None:
    rough = found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), expected, rtol=2e-2 if rough else 1e-4, atol=2e-2 if rough else 1e-5
    )


def skip_without(dtype: torch.dtype) -> None:
    if not (fused_calls_exist() and onednn_runs(dtype)):
        pytest.skip("needs oneDNN's fused calls")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("activation", [NOTHING, RELU, CLAMPED])
def test_a_fused_convolution(activation: Activation, name: str, dtype: torch.dtype) -> None:
    skip_without(dtype)
    layer, features, expected = layer_like(name, dtype)
    near(by_onednn(layer, activation, features)(features), activation.apply_(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [NOTHING, RELU, CLAMPED])
def test_a_fused_convolution_that_adds(activation: Activation, dtype: torch.dtype) -> None:
    """The call knows ReLU alone after an add; others come after it."""
    skip_without(dtype)
    layer, features, expected = layer_like("plain", dtype)
    onto = memory.channels_last(drawn(*expected.shape, dtype=dtype))
    whole = activation.apply_(expected + onto.float())
    found = by_onednn_onto(layer, activation, features)(features, onto)
    near(found, whole)
    assert found.data_ptr() == onto.data_ptr()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_plain_call(name: str) -> None:
    layer, features, expected = layer_like(name, torch.float32)
    near(plain_convolution(layer, features), expected)


def test_which_types_it_knows() -> None:
    assert onednn_runs(torch.float32)
    assert not onednn_runs(torch.float64)
