"""What moves, scales and clears features does what PyTorch does."""

import operator

import numpy as np
import pytest
import torch
from torch.nn import functional

from native_calls import DTYPES, drawn, played
from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
)
from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.patterns import Scaling
from runtime_pruning.executor.kernels.data_movement import (
    cleared,
    copied,
    of_step,
    scaling_instruction,
)
from runtime_pruning.executor.native import memory
from runtime_pruning.network.graph import FxCall, Ref

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")

HALF = slice(None, None, 2)


ALL = slice(None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 7, 5), (4, 1, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_images_are_scaled_exactly(
    last: bool, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    images_BCHW = torch.rand(2, *shape)
    images_BCHW = memory.channels_last(images_BCHW) if last else images_BCHW
    mean, std = torch.rand(2, shape[0], 1, 1)
    scaling = Scaling(mean, std + 0.1)
    instruction = scaling_instruction(scaling, images_BCHW, 0, 1)
    assert instruction is not None
    state = [images_BCHW, None]
    CommandBuffer([instruction], {1}, dtype)(state)
    assert state[1] is not None
    assert torch.equal(state[1], scaling(images_BCHW).to(dtype))
    assert memory.channels_last(state[1]) is state[1]
    assert scaling_instruction(scaling, images_BCHW.double(), 0, 1) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "step",
    [
        FxCall("taken", "function", operator.getitem, (Ref("x"), (ALL, ALL, HALF, HALF))),
        FxCall(
            "taken", "function", operator.getitem, (Ref("x"), (ALL, ALL, ALL, slice(0, None, 3)))
        ),
        FxCall("padded", "function", functional.pad, (Ref("x"), (0, 0, 0, 0, 3, 5))),
        FxCall("padded", "function", functional.pad, (Ref("x"), (0,) * 5 + (8,)), {"value": None}),
    ],
)
def test_what_moves_features_does_what_pytorch_does(step: FxCall, dtype: torch.dtype) -> None:
    features = memory.channels_last(drawn(2, 12, 7, 9, dtype=dtype))
    instruction = of_step(step, features, 0, 1)
    started = step.target is operator.getitem and step.args[1][3].start is not None
    assert (instruction is None) is started
    if instruction is not None:
        state = [features, None]
        CommandBuffer([instruction], {1}, dtype)(state)
        assert state[1] is not None
        assert torch.equal(state[1], step.target(features, *step.args[1:], **step.kwargs))


@pytest.mark.parametrize(
    "step",
    [
        FxCall("s", "function", operator.getitem, (Ref("x"), (ALL, slice(0, 4), ALL, ALL))),
        FxCall("s", "function", operator.getitem, (Ref("x"), (ALL, HALF, ALL, ALL))),
        FxCall("s", "function", operator.getitem, (Ref("x"), (ALL, ALL, 0, ALL))),
        FxCall("s", "function", operator.getitem, (Ref("x"), 0)),
        FxCall("s", "function", functional.pad, (Ref("x"), (1, 1, 0, 0, 2, 2))),
        FxCall("s", "function", functional.pad, (Ref("x"), (0, 0, 0, 0, -1, 2))),
        FxCall("s", "function", functional.pad, (Ref("x"), (0, 0, 0, 0, 1, 2)), {"value": 1.0}),
        FxCall(
            "s", "function", functional.pad, (Ref("x"), (0, 0, 0, 0, 1, 2)), {"mode": "reflect"}
        ),
        FxCall("s", "function", functional.relu, (Ref("x"),)),
        FxCall("s", "method", "relu", (Ref("x"),)),
    ],
)
def test_what_moves_features_otherwise_is_left_to_pytorch(step: FxCall) -> None:
    assert of_step(step, memory.channels_last(torch.rand(1, 4, 4, 4)), 0, 1) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_is_widened_and_cleared_where_only_the_result_has_channels(
    dtype: torch.dtype,
) -> None:
    features = memory.channels_last(drawn(3, 8, 5, 6, dtype=dtype))
    rows = [(4, 4), (4, 24), (8, 11), (11, 8)]
    places = [np.array([1, 2, 3], dtype=np.int32)]
    instructions = [
        copied((5, 6, 8), 24, 0, 1),
        cleared((5, 6, 24), 1, rows, read=0),
        Instruction(Opcode.MOVE, 1, 2),
    ]
    _, _, found = played(instructions, [features, None, None], places)
    assert found.shape == (3, 24, 5, 6)
    assert torch.equal(found[0, :4], features[0, :4])
    assert (found[0, 4:] == 0).all()
    assert torch.equal(found[1, :8], features[1])
    assert (found[1, 8:11] == 0).all()
    assert torch.equal(found[2, :8], features[2])  # nothing is absent
