"""Operations bound to widths: closures that read and write the slots of a state.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from runtime_pruning.executor.commands.command_buffer import NativeStep
from runtime_pruning.executor.commands.instruction import Instruction, Opcode, State, Step
from runtime_pruning.executor.ir.lowering import folded
from runtime_pruning.executor.ir.operations import (
    NOTHING,
    Call,
    Follower,
    LateNorm,
    Layer,
    Lowered,
    Operation,
)
from runtime_pruning.executor.ir.patterns import pooling_first
from runtime_pruning.executor.kernels.compiled import (
    CompiledConvolution,
    CompiledLinear,
    compiled_functions,
    compiled_linear_runs,
    compiled_runs,
)
from runtime_pruning.executor.kernels.data_movement import copied, of_step, scaling_instruction
from runtime_pruning.executor.kernels.pooling import pooling_instruction, runnable
from runtime_pruning.executor.kernels.selection import convolution, convolution_onto, linear
from runtime_pruning.executor.native import library, packing
from runtime_pruning.executor.program.steps import (
    Widths,
    added,
    adding,
    calling,
    casting,
    conditional,
    following,
    odd,
    opaque,
)
from runtime_pruning.network.sliced_calls import convolve


class Bound(NamedTuple):
    """Steps that have run once, and the multiply-accumulates that they made per image."""

    steps: list[Step]
    macs: int


def reads_planes(lowered: Lowered, dtype: torch.dtype, channels: int) -> bool:
    """Whether all that reads images is an instruction, which takes them plane by plane too.

    Args:
        lowered: the operations of a network, to be bound to fused calls.
        dtype: of its weights and features.
        channels: of images.
    """
    operations = [op for stage in lowered.stages for op in stage]
    readers = [op for op in operations if lowered.images in {value.name for value in op.reads}]
    if library.functions(dtype) is None or len(readers) != 1:
        return False
    (first,) = readers
    return first.scaling is not None and not first.followers and first.scaling.fits(channels)


class Binder:
    """Binds operations, and runs them once while it does.

    Args:
        lowered: what is known of the values.
        slots: of the values in a state.
        dtype: of weights and features.
        fused: whether to use fused calls.
    """

    def __init__(
        self, lowered: Lowered, slots: Mapping[str, int], *, dtype: torch.dtype, fused: bool
    ) -> None:
        self._lowered = lowered
        self._slots = slots
        self._dtype = dtype
        self._fused = fused
        self._packed: dict[str, packing.Packed] = {}

    def bind(self, op: Operation, index: int, widths: Widths, state: State) -> Bound:
        """Return an operation at real widths, its result written to the state.

        Args:
            op: the operation.
            index: its place among all operations.
            widths: of the values that it touches, in channels.
            state: holds what it reads.
        """
        steps: list[Step] = []
        macs = 0
        if op.weight is not None:
            source = self._slots[op.source.name]
            if state[source].dtype != self._dtype:
                steps.append(casting(source, self._dtype))
                steps[-1](state)
            masked = state[-1] is not None
            layer = self.layer(op, widths, masked=masked)
            macs = self._count(op, layer, state[source])
            if masked and op.conditional:
                own: list[Step] = [conditional(op, layer, self._slots)]
            else:
                op = _at_width(op, _read(op, widths))
                own = self._layer_steps(op, layer, index, widths, state)
        else:
            macs = op.fixed_macs
            own = [self.unweighted(op, state)]
        for step in own:
            step(state)
        return Bound([*steps, *own], macs)

    def unweighted(self, op: Operation, state: State) -> Step:
        """Return an operation without weights, at whatever widths it finds."""
        recorded = self._moved(op, state) if self._fused else None
        if recorded is not None:
            return recorded
        if op.scaling is not None:
            return calling(op.scaling, op, self._slots)
        if op.kind == "opaque":
            return opaque(op, self._slots)
        if op.kind == "add":
            return adding(op, self._slots)
        return calling(lambda features: features, op, self._slots)

    def _moved(self, op: Operation, state: State) -> NativeStep | None:
        """Return an operation as an instruction, if it is one that native calls know."""
        if op.followers or not op.inputs or op.kind != "opaque":
            return None
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        like = state[source]
        if not isinstance(like, Tensor) or like.ndim != 4 or compiled_functions(like) is None:
            return None
        instruction = None
        if op.scaling is not None:
            instruction = scaling_instruction(op.scaling, like, source, to)
        elif op.step is not None and like.dtype == self._dtype:
            instruction = of_step(op.step, like, source, to)
        return None if instruction is None else NativeStep((instruction,), self._dtype)

    def layer(self, op: Operation, widths: Widths, *, masked: bool = False) -> Layer:
        """Return the first rows and columns of a layer's weights, with batch norm in them.

        Args:
            op: the operation.
            widths: of what it reads and makes, in channels.
            masked: leave batch norm out where images of unlike widths share the call.
        """
        assert op.weight is not None
        own = op.output if op.conv_output is None else op.conv_output
        rows = widths[own.name] * op.head_factor
        inputs = widths[op.source.name] * op.source.factor
        columns = op.weight.shape[1] if op.kind == "depthwise" else inputs // op.groups
        weight = op.weight[:rows, :columns]
        bias = None if op.bias is None else op.bias[:rows]
        for norm in () if masked and op.conditional else op.norms:
            weight, bias = folded(weight, bias, norm, _read(op, widths))
        weight = weight.to(self._dtype)
        if op.kind != "linear":
            weight = weight.contiguous()
        bias = None if bias is None else bias.to(self._dtype)
        return Layer(weight, bias, op.geometry, inputs // columns)

    def packed(self, op: Operation, layer: Layer) -> packing.Packed:
        """Return the weights of a linear layer for our own calls.

        All widths share what is packed, unless batch norm makes each another.
        """
        if op.norms:
            return packing.packed_linear(layer.weight, layer.bias)
        name = op.output.name
        if name not in self._packed:
            assert op.weight is not None
            self._packed[name] = packing.packed_linear(op.weight.to(self._dtype), op.bias)
        return self._packed[name]

    def _count(self, op: Operation, layer: Layer, features: Tensor) -> int:
        """Return the MACs per image of calling a layer on these features."""
        if op.kind == "linear":
            elements = layer.weight.shape[0] * features[0].numel() // features.shape[-1]
        else:
            with torch.device("meta"):
                sample = torch.empty(1, *features.shape[1:])
                weight = torch.empty(layer.weight.shape)
            elements = convolve(op.module, sample, weight, None).numel()
        return elements * (layer.weight.numel() // layer.weight.shape[0])

    def _layer_steps(
        self, op: Operation, layer: Layer, index: int, widths: Widths, state: State
    ) -> list[Step]:
        """Return the steps of a convolution or linear layer."""
        like = state[self._slots[op.source.name]]
        if op.kind == "linear":
            ours = self._fused and compiled_linear_runs(like)
            packed = self.packed(op, layer) if ours else None
            return self._called(linear(layer, packed, like), op)
        if layer.geometry is None:
            return self._called(odd(op, layer), op)
        if op.onto is None:
            return self._called(convolution(layer, op.activation, like, fused=self._fused), op)
        return self._residual(op, layer, index, widths, state)

    def _called(self, call: Call, op: Operation) -> list[Step]:
        """Return a call on the first input, and what follows it."""
        if not isinstance(call, CompiledConvolution | CompiledLinear):
            return [calling(call, op, self._slots)]
        instruction = call.instruction(self._slots[op.source.name], self._slots[op.output.name])
        return self._recorded([instruction], instruction.out or (), op.followers)

    def _recorded(
        self, instructions: list[Instruction], size: tuple[int, ...], followers: Sequence[Follower]
    ) -> list[Step]:
        """Return instructions whose last makes an image of a size, and what follows them."""
        pools, rest = pooling_first(followers) if len(size) == 3 else ([], list(followers))
        for pool in pools:
            instructions = [
                *instructions,
                pooling_instruction(pool, size, instructions[-1].target, size[2:]),
            ]
            size = instructions[-1].out or ()
        steps: list[Step] = [NativeStep(tuple(instructions), self._dtype)]
        if rest:
            steps.append(following(instructions[-1].target, rest))
        return steps

    def _residual(
        self, op: Operation, layer: Layer, index: int, widths: Widths, state: State
    ) -> list[Step]:
        """Return the steps of a convolution whose result is added to a stream."""
        assert op.onto is not None
        assert op.conv_output is not None
        like = state[self._slots[op.source.name]]
        mine, theirs = widths[op.conv_output.name], widths[op.onto.name]
        source, onto, to = (self._slots[v.name] for v in (op.source, op.onto, op.output))
        if mine > theirs and self._fused and compiled_runs(layer, like):
            channels, high, wide = state[onto].shape[1:]
            size = (high, wide, mine)
            first = copied((high, wide, channels), mine, onto, to)
            call = CompiledConvolution(layer, op.activation, like, mine)
            return self._recorded([first, call.instruction(source, to)], size, op.followers)
        if mine > theirs:
            alone = convolution(layer, NOTHING, like, fused=self._fused)
            return [added(alone, op, self._slots)]
        name = op.onto.name
        dies = self._lowered.last_reader[name] == index and name != op.source.name
        copies = not (dies and name in self._lowered.owned)
        whole = mine == theirs
        positive = op.activation.attr == "relu" and name in self._lowered.nonnegative
        # On a view, oneDNN's call falls back to an add with ReLU that lacks bfloat16.
        able = whole or (positive and (self._dtype == torch.float32 or compiled_runs(layer, like)))
        inside = op.activation if able else NOTHING
        call_onto = convolution_onto(layer, inside, like, room=theirs, fused=self._fused)
        rows, after, followers = layer.weight.shape[0], op.activation, op.followers
        others = runnable(followers)
        later = inside is NOTHING and after != NOTHING
        if isinstance(call_onto, CompiledConvolution) and not later:
            channels, high, wide = state[onto].shape[1:]
            size = (high, wide, channels)
            first = (
                copied(size, channels, onto, to) if copies else Instruction(Opcode.MOVE, onto, to)
            )
            return self._recorded([first, call_onto.instruction(source, to)], size, followers)

        # A convolution of one input channel may have left the stream channel by channel, since one
        # channel lies either way; the call onto it reckons with pixels side by side.
        last = like.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format

        def run(state: State) -> None:
            stream = state[onto].clone(memory_format=layout) if copies else state[onto]
            stream = stream.contiguous(memory_format=layout)
            first = stream if whole else stream.narrow(1, 0, rows)
            call_onto(state[source], first)
            if later:
                after.apply_(first if positive else stream)
            for follower in others:
                stream = follower(stream)
            state[to] = stream

        return [run]


def _read(op: Operation, widths: Widths) -> int | None:
    """Return how many channels a layer reads, where batch norm may ask for it."""
    mixes = op.kind in ("convolution", "linear") and op.source.width.pruned
    return widths[op.source.name] if mixes else None


def _at_width(op: Operation, read: int | None) -> Operation:
    """Return the operation with the batch norms that are not folded at one width."""
    bound = [partial(f, read=read) if isinstance(f, LateNorm) else f for f in op.followers]
    return replace(op, followers=tuple(bound))
