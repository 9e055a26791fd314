"""Our own calls against PyTorch's, at the widths, sizes and edges where their tiles differ."""

import ctypes
import gc
import itertools
import math
import operator
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
    FreeSlots,
    NativeStep,
    coalesce,
)
from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.operations import NOTHING, Activation, Geometry, Layer
from runtime_pruning.executor.ir.patterns import GlobalPool, MaxPool, Scaling
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
    CompiledLinear,
    compiled_linear_runs,
)
from runtime_pruning.executor.kernels.data_movement import (
    cleared,
    copied,
    of_step,
    scaling_instruction,
)
from runtime_pruning.executor.kernels.pooling import CompiledPooling, pooling_instruction
from runtime_pruning.executor.kernels.selection import linear
from runtime_pruning.executor.native import abi, library, memory, packing
from runtime_pruning.network.graph import FxCall, Ref

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if library.functions(dtype)]
NEAR = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (2e-2, 2e-2)}
NO_LIMITS = (-math.inf, math.inf)

pytestmark = pytest.mark.skipif(not DTYPES, reason="needs a compiler and an x86 CPU")


def near(found: Tensor, expected: Tensor) -> None:
    relative, absolute = NEAR[found.dtype]
    torch.testing.assert_close(found.float(), expected, rtol=relative, atol=absolute)


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return values that both types hold exactly enough: rounded to the type."""
    return torch.randn(shape).to(dtype)


def convolved(
    features_BCHW: Tensor,
    packed: packing.Packed,
    widths: list[tuple[int, int]],
    which_B: list[int],
    *,
    side: int,
    room: int,
    stride: int = 1,
    padding: int = 1,
    limits: tuple[float, float] = NO_LIMITS,
    onto: Tensor | None = None,
    threads: int = 1,
) -> Tensor:
    """Run images at widths of their own."""
    own: Any = library.functions(features_BCHW.dtype)
    kernel = (packed.weight.shape[1], packed.weight.shape[2])
    frame = abi.Frame.of(features_BCHW, kernel, (stride,) * 2, (padding,) * 2)
    assert frame.out == (side, side)
    call = frame.call(features_BCHW.shape[1], room, limits, add=onto is not None)
    rows = abi.slices(packed.row(*width) for width in widths)
    places_B = np.array(which_B, dtype=np.int32)
    batch = len(which_B)
    out = memory.empty(batch, room, frame.out, features_BCHW).fill_(7.0) if onto is None else onto
    macs_B = np.ones(batch, dtype=np.int64)
    own.convolve(
        *(ctypes.addressof(call), ctypes.addressof(rows), places_B.ctypes.data, None, 1),
        *(macs_B.ctypes.data, features_BCHW.data_ptr(), out.data_ptr(), batch, threads),
    )
    taps = side * side * kernel[0] * kernel[1]
    assert macs_B.tolist() == [1 + taps * math.prod(widths[place]) for place in which_B]
    return out


def played(
    instructions: list[Instruction], values: list[Tensor | None], places: list[np.ndarray[Any, Any]]
) -> list[Any]:
    """Return the values after some calls, images at widths of their own."""
    like, state = values[0], list[Any](values)
    assert like is not None
    buffer = CommandBuffer(instructions, range(len(state)), like.dtype)
    places_KB = np.stack(places)
    buffer(state, places_KB.ctypes.data)
    return state


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


def test_large_weights_lie_on_huge_pages_and_stay() -> None:
    values = torch.arange(2 * memory.HUGE, dtype=torch.float32).view(4, -1)
    placed = memory.on_huge_pages(values)
    assert placed.data_ptr() != values.data_ptr()
    assert placed.data_ptr() % memory.HUGE == 0
    gc.collect()  # the memory belongs to the tensor alone
    assert torch.equal(placed, values)
    small = torch.zeros(16)
    assert memory.on_huge_pages(small) is small


def test_every_width_is_a_prefix_of_one_packing() -> None:
    weight = torch.randn(40, 24, 3, 3)
    packed = packing.Packed(weight, None)
    addresses = {packed.row(*width).weight for width in itertools.product((8, 24), (8, 40))}
    assert len(addresses) == 1


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


@pytest.mark.parametrize(
    "module", [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2)]
)
def test_other_pooling_is_left_to_its_module(module: nn.Module) -> None:
    assert not MaxPool.knows(module)


def test_max_pooling_of_a_view_is_that_of_its_channels() -> None:
    features = memory.channels_last(drawn(2, 8, 6, 6, dtype=torch.float32))
    module = nn.MaxPool2d(2)
    first = features.narrow(1, 0, 3)
    assert torch.equal(CompiledPooling(MaxPool(module))(first), module(first))


def test_one_process_compiles_for_all(tmp_path: Path) -> None:
    compiler = tmp_path / "slow-compiler"
    real = shutil.which("g++") or shutil.which("clang++")
    assert real is not None
    runs = tmp_path / "runs"
    compiler.write_text(f'#!/bin/sh\necho "$*" >> {runs}\nsleep 2\nexec {real} "$@"\n')
    compiler.chmod(0o755)
    told = (
        "from pathlib import Path; from runtime_pruning.executor.native import build; "
        f"print(build.compiled_library(Path({str(tmp_path / 'one.cpp')!r}), {str(compiler)!r}))"
    )
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }\n')
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", told], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    (one, _), (other, _) = (process.communicate(timeout=300) for process in processes)
    assert one == other != b""
    assert sum(" -c " in line for line in runs.read_text().splitlines()) == 1


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


MODULES: dict[str, nn.Module] = {
    "one": nn.AdaptiveAvgPool2d(1),
    "seven": nn.AdaptiveAvgPool2d(7),
    "flat": nn.Flatten(),
    "rows": nn.Flatten(2),
}


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


HALF = slice(None, None, 2)
ALL = slice(None)


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


# Command buffers


def layer_of(outputs: int, inputs: int, dtype: torch.dtype) -> Layer:
    weight = drawn(outputs, inputs, 3, 3, dtype=dtype) / 10
    return Layer(weight, drawn(outputs, dtype=dtype), Geometry((1, 1), (1, 1), (1, 1)), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_tape_returns_what_its_calls_return_one_by_one(batch: int, dtype: torch.dtype) -> None:
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


def test_a_step_that_is_no_call_of_ours_parts_a_tape() -> None:
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


@pytest.mark.parametrize("side", [3, 6])
def test_what_a_tape_still_needs_is_not_written_over(side: int) -> None:
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
