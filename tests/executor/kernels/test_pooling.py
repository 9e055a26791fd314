"""Pooling by compiled calls against PyTorch's."""

import numpy as np
import pytest
import torch
from torch import nn

from native_calls import DTYPES, drawn, near, played
from runtime_pruning.executor.ir.patterns import GlobalPool, MaxPool
from runtime_pruning.executor.kernels.pooling import CompiledPooling, pooling_instruction
from runtime_pruning.executor.native import memory

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((3, 2), 1, (1, 0))]
)
@pytest.mark.parametrize("channels", [3, 8, 20, 68])
def test_max_pooling_at_widths_of_their_own(
    channels: int,
    kernel: int | tuple[int, int],
    stride: int,
    padding: int | tuple[int, int],
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(channels)
    module = nn.MaxPool2d(kernel, stride, padding)
    features = memory.channels_last(drawn(3, channels, 9, 12, dtype=dtype)) - 3  # below the padding
    pool, expected = MaxPool(module), module(features)
    assert pool.knows(module)
    assert torch.equal(pool(features), expected)
    assert torch.equal(CompiledPooling(pool)(features), expected)
    own = [channels, 1, channels // 2]
    (found,) = played(
        [pooling_instruction(pool, (9, 12, channels), 0, own, read=0)],
        [features],
        [np.arange(3, dtype=np.int32)],
    )
    for image, count in enumerate(own):
        assert torch.equal(found[image, :count], expected[image, :count])


def test_max_pooling_of_a_view_is_that_of_its_channels() -> None:
    features = memory.channels_last(drawn(2, 8, 6, 6, dtype=torch.float32))
    module = nn.MaxPool2d(2)
    first = features.narrow(1, 0, 3)
    assert torch.equal(CompiledPooling(MaxPool(module))(first), module(first))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 8, 20, 68])
def test_means_over_pixels_at_widths_of_their_own(channels: int, dtype: torch.dtype) -> None:
    torch.manual_seed(channels)
    features = memory.channels_last(drawn(3, channels, 5, 7, dtype=dtype))
    pool, expected = GlobalPool(), features.float().mean((2, 3))
    near(pool(features), expected)
    near(CompiledPooling(pool)(features), expected)
    own = [channels, 1, channels // 2]
    (found,) = played(
        [pooling_instruction(pool, (5, 7, channels), 0, own, read=0)],
        [features],
        [np.arange(3, dtype=np.int32)],
    )
    for image, count in enumerate(own):
        near(found[image, :count], expected[image, :count])
