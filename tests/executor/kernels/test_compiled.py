"""Compiled layers against PyTorch's, at the widths, sizes and edges where their tiles differ."""

import ctypes
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from native_calls import DTYPES, NO_LIMITS, convolved, drawn, near
from runtime_pruning.executor.ir.operations import Activation, Geometry, Layer
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
    CompiledLinear,
    compiled_linear_runs,
)
from runtime_pruning.executor.kernels.selection import linear
from runtime_pruning.executor.native import abi, library, memory, packing

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [1, 4, 7, 8, 13, 17, 33])
@pytest.mark.parametrize("outputs", [3, 8, 12, 16, 24, 40, 56])
def test_convolutions_at_every_tile(outputs: int, side: int, dtype: torch.dtype) -> None:
    torch.manual_seed(outputs * side)
    inputs = 12
    weight, bias = drawn(outputs, inputs, 3, 3, dtype=dtype) / 10, drawn(outputs, dtype=dtype)
    features = memory.channels_last(drawn(2, inputs, side, side, dtype=dtype))
    packed = packing.Packed(weight, bias)
    found = convolved(
        features, packed, [(inputs, outputs)], [0, 0], side=side, room=outputs, limits=(0.0, 6.0)
    )
    near(found, functional.conv2d(features.float(), weight.float(), bias.float(), 1, 1).clamp(0, 6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 1), (3, 2, 1), (5, 1, 2)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_images_at_widths_of_their_own(
    threads: int, kernel: int, stride: int, padding: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(kernel)
    most, room, side = 20, 28, 14
    weight, bias = drawn(room, most, kernel, kernel, dtype=dtype) / 10, drawn(room, dtype=dtype)
    features = memory.channels_last(drawn(4, most, side, side, dtype=dtype))
    widths = [(20, 28), (5, 28), (12, 9), (20, 4)]  # 5 is odd: bfloat16 reads channels by pairs
    out = (side + 2 * padding - kernel) // stride + 1
    for add in (False, True):
        before = memory.channels_last(drawn(4, room, out, out, dtype=dtype))
        found = convolved(
            *(features, packing.Packed(weight, bias), widths, [3, 1, 2, 0]),
            side=out,
            room=room,
            stride=stride,
            padding=padding,
            onto=before.clone(memory_format=torch.preserve_format) if add else None,
            threads=threads,
        )
        for image, place in enumerate([3, 1, 2, 0]):
            read, write = widths[place]
            expected = functional.conv2d(
                features[image : image + 1, :read].float(),
                weight[:write, :read].float(),
                bias[:write].float(),
                stride,
                padding,
            )
            if add:
                expected += before[image, :write].float()
            near(found[image : image + 1, :write], expected)
            untouched = before[image, write:] if add else torch.full_like(found[image, write:], 7.0)
            assert torch.equal(found[image, write:], untouched)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 9, 10, 13, 64, 67])
@pytest.mark.parametrize("outputs", [1, 10, 16, 33, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_linear_layers(threads: int, outputs: int, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(outputs)
    most = 1200  # more than are taken at a time
    weight, bias = drawn(outputs, most, dtype=dtype) / 30, drawn(outputs, dtype=dtype)
    packed = packing.packed_linear(weight, bias)
    torch.set_num_threads(threads)
    for inputs in (most, 514, 6):
        features = drawn(batch, inputs, dtype=dtype)
        layer = Layer(weight[:, :inputs], bias, None, 1)
        expected = functional.linear(features.float(), weight[:, :inputs].float(), bias.float())
        near(CompiledLinear(layer, packed, features)(features), expected)
        near(linear(layer, packed, features)(features), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_linear_layer_of_images_that_read_unlike_numbers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    outputs, most = 40, 1200
    weight, bias = drawn(outputs, most, dtype=dtype) / 30, drawn(outputs, dtype=dtype)
    inputs_B = np.sort(np.random.default_rng(0).choice([1200, 1026, 512, 6], 70))[::-1].copy()
    features = drawn(len(inputs_B), most, dtype=dtype)
    features[torch.arange(most) >= torch.from_numpy(inputs_B)[:, None]] = math.inf
    packed = packing.packed_linear(weight, bias)
    row = packed.row(most, outputs)
    call = abi.ALONE.call(most, outputs, NO_LIMITS, add=False)
    out = torch.empty(len(inputs_B), outputs, dtype=dtype)
    own: Any = library.functions(dtype)
    own.linear(
        *(ctypes.addressof(call), ctypes.addressof(row), inputs_B.ctypes.data),
        *(features.data_ptr(), out.data_ptr(), len(out), 1),
    )
    for image, count in enumerate(inputs_B):
        own_C = features[image, :count].float()
        near(out[image], functional.linear(own_C, weight[:, :count].float(), bias.float()))


def test_which_linear_layers_are_ours() -> None:
    assert compiled_linear_runs(torch.zeros(2, 5))
    assert not compiled_linear_runs(torch.zeros(2, 5, dtype=torch.float64))
    assert not compiled_linear_runs(torch.zeros(2, 3, 5))
    assert not compiled_linear_runs(torch.zeros(2, 5, dtype=torch.bfloat16))  # read by pairs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), (3, 1, 0), (3, 2, 1), (5, 1, 2), ((3, 1), 1, (1, 0)), ((1, 3), (2, 1), (0, 1))],
)
@pytest.mark.parametrize("size", [(3, 3), (6, 7), (5, 27)])  # no tile, one, many and what is left
@pytest.mark.parametrize("channels", [3, 16, 24, 40])
def test_one_kernel_per_channel(
    channels: int,
    size: tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    dtype: torch.dtype,
) -> None:
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    down, along = (stride, stride) if isinstance(stride, int) else stride
    above, before = (padding, padding) if isinstance(padding, int) else padding
    weight, bias = drawn(channels, 1, high, wide, dtype=dtype), drawn(channels, dtype=dtype)
    features = memory.channels_last(drawn(2, channels, *size, dtype=dtype))
    layer = Layer(weight, bias, Geometry((down, along), (above, before), (1, 1)), channels)
    found = CompiledConvolution(layer, Activation("hardtanh", (0.0, 1.5)), features, None)(features)
    moves = {"stride": (down, along), "padding": (above, before), "groups": channels}
    whole = functional.conv2d(features.float(), weight.float(), bias.float(), **moves)
    near(found, whole.clamp(0, 1.5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 8, 12, 27, 64, 100, 160])
def test_means_of_an_images_first_channels(channels: int, dtype: torch.dtype) -> None:
    own = library.functions(dtype)
    assert own is not None
    features = memory.channels_last(drawn(3, channels, 5, 4, dtype=dtype))
    whole_BF = features.float().mean((2, 3))
    near(library.pool(own, features, None, channels + 9), functional.pad(whole_BF, (0, 9)))
    counts_B = np.array([channels, 1, max(1, channels // 2)], dtype=np.int64)
    found_BF = library.pool(own, features, counts_B, channels)
    for image, count in enumerate(counts_B):
        torch.testing.assert_close(found_BF[image, :count], whole_BF[image, :count])
        assert not found_BF[image, count:].any()
