"""Calls that run together return what they return one by one."""

from typing import Any

import pytest
import torch
from torch import nn

from native_calls import DTYPES, drawn, layer_of
from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
    FreeSlots,
    NativeStep,
    coalesce,
)
from runtime_pruning.executor.ir.operations import NOTHING
from runtime_pruning.executor.ir.patterns import MaxPool
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
)
from runtime_pruning.executor.kernels.data_movement import (
    copied,
)
from runtime_pruning.executor.kernels.pooling import pooling_instruction
from runtime_pruning.executor.native import abi, memory

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_buffer_returns_what_its_calls_return_one_by_one(batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(batch)
    features = memory.channels_last(drawn(batch, 8, 9, 7, dtype=dtype))
    first, second = (
        CompiledConvolution(layer_of(out, into, dtype), NOTHING, memory.channels_last(like), None)
        for out, into, like in ((12, 8, features), (20, 12, features[:, :1].repeat(1, 12, 1, 1)))
    )
    wide = memory.channels_last(features[:, :1].repeat(1, 20, 1, 1))
    onto = CompiledConvolution(
        layer_of(8, 20, dtype), NOTHING, wide, 8
    )  # the stream is the input itself
    module = nn.MaxPool2d(2)
    middle, end = second(first(features)), features.clone(memory_format=torch.channels_last)
    expected = module(onto(middle, end).float()).to(dtype)
    assert expected.abs().sum() > 0
    before = features.clone()
    steps = [
        NativeStep((first.instruction(0, 1),), dtype),
        NativeStep((second.instruction(1, 2),), dtype),
        NativeStep((copied((9, 7, 8), 8, 0, 3), onto.instruction(2, 3)), dtype),
        NativeStep((pooling_instruction(MaxPool(module), (9, 7, 8), 3, [8]),), dtype),
        FreeSlots((1, 0)),
    ]
    buffer, forget = coalesce(steps)
    assert isinstance(buffer, CommandBuffer)
    assert forget == FreeSlots((0,))  # what the buffer itself made is not even known
    state: list[Any] = [features, None, None, None]
    buffer(state)
    assert torch.equal(state[3], expected)
    assert torch.equal(state[2], middle)  # nobody forgot it
    assert state[1] is None
    assert torch.equal(features, before)


def test_a_step_that_is_no_call_of_ours_parts_a_buffer() -> None:
    like = memory.channels_last(drawn(1, 8, 4, 4, dtype=torch.float32))
    call = CompiledConvolution(layer_of(8, 8, torch.float32), NOTHING, like, None)
    steps = [NativeStep((call.instruction(i, i + 1),), torch.float32) for i in range(4)]

    def other(state: list[Any]) -> None:
        state[2] = state[2] * 2

    assert list(map(type, coalesce([*steps[:2], other, *steps[2:]]))) == [
        CommandBuffer,
        type(other),
        CommandBuffer,
    ]


@pytest.mark.parametrize("side", [3, 6])
def test_what_a_buffer_still_needs_is_not_written_over(side: int) -> None:
    """A chain of twelve values, each added to one from five steps before."""
    torch.manual_seed(side)
    like = memory.channels_last(drawn(2, 4, side, side, dtype=torch.float32))
    calls = [
        CompiledConvolution(layer_of(4, 4, torch.float32), NOTHING, like, None) for _ in range(12)
    ]
    adds = [CompiledConvolution(layer_of(4, 4, torch.float32), NOTHING, like, 4) for _ in range(12)]
    instructions, values = [], [like]
    for i, (call, add) in enumerate(zip(calls, adds, strict=True)):
        instructions.append(call.instruction(i, i + 1))
        values.append(call(values[i]))
        if i >= 5:
            instructions.append(add.instruction(i - 5, i + 1))
            values[-1] = add(values[i - 5], values[-1])
    state: list[Any] = [like, *[None] * 12]
    CommandBuffer(instructions, {12}, torch.float32)(state)
    torch.testing.assert_close(state[12], values[-1])


def test_memory_that_is_not_there_is_an_error() -> None:
    like = memory.channels_last(drawn(1, 4, 3, 3, dtype=torch.float32))
    call = CompiledConvolution(layer_of(4, 4, torch.float32), NOTHING, like, None)
    buffer = CommandBuffer([call.instruction(0, 1), call.instruction(1, 2)], {2}, torch.float32)
    layout = abi.BufferLayout.from_address(buffer._layout)
    layout.elements = 1 << 50
    with pytest.raises(MemoryError, match="1 images"):
        buffer([like, None, None])
