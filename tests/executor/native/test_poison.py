"""Poisoned memory: what reads what nobody wrote returns NaN, and nothing else does."""

import ctypes
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.executor import deploy
from runtime_pruning.executor.commands.command_buffer import CommandBuffer
from runtime_pruning.executor.commands.instruction import Instruction
from runtime_pruning.executor.ir.operations import NOTHING, Activation, Geometry, Layer
from runtime_pruning.executor.ir.patterns import MaxPool, Scaling
from runtime_pruning.executor.kernels.compiled import CompiledConvolution
from runtime_pruning.executor.kernels.data_movement import scaling_instruction
from runtime_pruning.executor.kernels.pooling import CompiledPooling
from runtime_pruning.executor.native import abi, library, memory
from runtime_pruning.executor.native.poison import poisoned
from runtime_pruning.network import trace

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if library.functions(dtype)]

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")


def convolution(inputs: int, outputs: int, dtype: torch.dtype) -> CompiledConvolution:
    weight = torch.randn(outputs, inputs, 3, 3).to(dtype) / 10
    layer = Layer(weight, None, Geometry((1, 1), (1, 1), (1, 1)), 1)
    like = memory.channels_last(torch.zeros(1, inputs, 6, 6, dtype=dtype))
    return CompiledConvolution(layer, Activation("relu"), like, None)


def written_in_part(dtype: torch.dtype) -> list[Instruction]:
    """Return calls of which the second reads 12 channels where the first wrote 4."""
    first, second = convolution(3, 12, dtype), convolution(12, 8, dtype)
    wide = abi.LayerSlice.from_address(first.instruction(0, 1).widths)
    narrow = abi.slices([wide])
    narrow[0].co = 4
    whole = first.instruction(0, 1)
    own = Instruction(
        *(whole.kind, 0, 1, whole.out, whole.call, ctypes.addressof(narrow)),
        keepalive=(whole, narrow),
    )
    return [own, second.instruction(1, 2)]


def run(instructions: list[Instruction], images_BCHW: Tensor, kept: set[int]) -> list[Tensor]:
    state = [images_BCHW, None, None]
    CommandBuffer(instructions, kept, images_BCHW.dtype)(state)
    return [state[slot] for slot in kept]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 3), (2, 1), (2, 5)])
def test_what_nobody_wrote_shows(threads: int, batch: int, dtype: torch.dtype) -> None:
    torch.set_num_threads(threads)
    images_BCHW = memory.channels_last(torch.rand(batch, 3, 6, 6).to(dtype))
    with poisoned():
        (inner,) = run(written_in_part(dtype), images_BCHW, {2})
        (kept,) = run(written_in_part(dtype)[:1], images_BCHW, {1})
    assert inner.isnan().all()
    assert kept[:, 4:].isnan().all()
    assert not kept[:, :4].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_else_does(dtype: torch.dtype) -> None:
    images_BCHW = memory.channels_last(torch.rand(3, 3, 6, 6).to(dtype))
    instructions = [
        convolution(3, 12, dtype).instruction(0, 1),
        convolution(12, 8, dtype).instruction(1, 2),
    ]
    (expected,) = run(instructions, images_BCHW, {2})
    with poisoned():
        (found,) = run(instructions, images_BCHW, {2})
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_residual_network_reads_what_it_wrote(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = (3, 16, 16)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    network = trace(backbone, shape).eval()
    images_BCHW, sites = torch.rand(5, *shape), len(network.sites)
    plans_BL = torch.randint(1, 5, (5, sites))
    expected = deploy(network, dtype=dtype).run(images_BCHW, plans_BL, mode="ragged")
    with poisoned():
        found = deploy(network, dtype=dtype).run(images_BCHW, plans_BL, mode="ragged")
    assert torch.equal(found.logits_BK, expected.logits_BK)


def test_memory_is_as_before_when_it_ends() -> None:
    own = library.functions(DTYPES[0])
    assert own is not None
    with poisoned():
        assert torch.empty(100).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    images_BCHW = memory.channels_last(torch.rand(1, 3, 6, 6))
    held_1F = library.pool(own, images_BCHW, None, 5)
    assert torch.allclose(held_1F[0, :3], images_BCHW.mean((2, 3))[0])


# NaN in, NaN out, as PyTorch has it: a kernel that hides it would hide memory that nobody wrote


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [NOTHING, Activation("relu")])
def test_a_convolution_keeps_nan(activation: Activation, dtype: torch.dtype) -> None:
    weight = torch.ones(5, 2, 1, 1, dtype=dtype)
    layer = Layer(weight, None, Geometry((1, 1), (0, 0), (1, 1)), 1)
    features = memory.channels_last(torch.ones(1, 2, 3, 3, dtype=dtype))
    features[0, 1, 2, 0] = math.nan
    found = CompiledConvolution(layer, activation, features, None)(features)
    expected = torch.full((1, 5, 3, 3), 2.0, dtype=dtype)
    expected[0, :, 2, 0] = math.nan
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 16, 75])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (1, 2), (3, 3)])
def test_max_pooling_keeps_nan(place: tuple[int, int], channels: int, dtype: torch.dtype) -> None:
    features = memory.channels_last(torch.rand(2, channels, 4, 4).to(dtype))
    features[0, :, place[0], place[1]] = math.nan
    module = nn.MaxPool2d(2)
    found, expected = CompiledPooling(MaxPool(module))(features), module(features)
    assert torch.equal(found.isnan(), expected.isnan())
    assert expected.isnan().sum() == channels
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_nan_stays_one_when_images_become_smaller_numbers(dtype: torch.dtype) -> None:
    """The largest payload would be rounded over to zero."""
    bits = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001], dtype=np.uint32)
    values = torch.from_numpy(bits.view(np.float32)).repeat(4).view(1, 1, 4, 4)
    scaling = Scaling(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    instruction = scaling_instruction(scaling, values, 0, 1)
    assert instruction is not None
    state = [values, None]
    CommandBuffer([instruction], {1}, dtype)(state)
    assert state[1] is not None
    assert state[1].isnan().all()
