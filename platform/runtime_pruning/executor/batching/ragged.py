"""Batches whose images have unlike plans, each image of each layer at its own width, in one call.

Values are stored at full width. What an image leaves out is never written and never read, so that
nothing is gathered, nothing is masked, and executed MACs are those of the plans. Needs the calls of
`native`, and a network without grouped convolutions and without statistics that cannot be folded.

Calls that follow each other are one command buffer, across decisions that are known before.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes, N images of a part.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.executor.batching.plans import Decider, Outcome, PlanDecider
from runtime_pruning.executor.batching.ragged_layers import TINY, RaggedConvolution, RaggedLinear
from runtime_pruning.executor.batching.width_table import RaggedBatch, WidthTable
from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
    FreeSlots,
    NativeStep,
    coalesce,
    splits_batch,
)
from runtime_pruning.executor.commands.instruction import Instruction, Opcode, State
from runtime_pruning.executor.ir.operations import NOTHING, LateNorm, Lowered, Operation
from runtime_pruning.executor.ir.patterns import pooling_first
from runtime_pruning.executor.kernels.compiled import compiled_fits, pooled
from runtime_pruning.executor.kernels.data_movement import cleared, copied, decided
from runtime_pruning.executor.kernels.pooling import pooling_instruction, runnable
from runtime_pruning.executor.native import library, memory
from runtime_pruning.executor.native.abi import Counts, Numbers
from runtime_pruning.executor.program.stage_programs import StagePrograms
from runtime_pruning.executor.program.steps import following
from runtime_pruning.network.graph import Value
from runtime_pruning.network.sliced_calls import add_channels

BatchStep: TypeAlias = Callable[[RaggedBatch], None]
Bound: TypeAlias = BatchStep | NativeStep | FreeSlots


class Ragged:
    """Runs mixed batches of a network.

    Args:
        programs: of the network; its weights and slots are used.
        dtype: of weights and features.

    Attributes:
        apart: whether a batch is taken apart inside a compiled call; known after the first run.
    """

    def __init__(self, programs: StagePrograms, dtype: torch.dtype) -> None:
        self._programs = programs
        self._binder = programs.binder
        self._dtype = dtype
        self._slots = programs.slots
        self._sites = len(programs.bounds)
        values = [v for stage in programs.lowered.stages for op in stage for v in op.widths]
        self._keys = WidthTable(programs.bounds, values)
        self._stages: list[list[BatchStep]] | None = None
        self.splits_batch = False
        self._all: list[BatchStep] = []  # of all stages
        self._deciding: list[BatchStep] = []  # likewise, with the decisions between them

    def run(self, images_BCHW: Tensor, decide: Decider) -> Outcome:
        """Run a batch; a site is decided for all its images when they have come to it.

        Args:
            images_BCHW: float.
            decide: tells each image's groups.
        """
        if self._stages is None:
            self._stages = self._compile(torch.zeros_like(images_BCHW[:1]))
        if isinstance(decide, PlanDecider):
            assert decide.counts is not None
            batch = self._new(images_BCHW, decide.counts)
            self._keys.settle(0, self._sites, batch)
            for step in self._all:
                step(batch)
            return batch.outcome(self._programs.logits_slot)
        counts = (ctypes.c_int64 * self._sites * images_BCHW.shape[0])()
        batch = self._new(images_BCHW, counts)
        decisions = getattr(decide, "compiled", None)
        if decisions is not None:
            self._keys.let_decide(decisions, batch)
            for step in self._deciding:
                step(batch)
        else:
            for stage, steps in enumerate(self._stages):
                if stage:
                    self._ask(batch, stage - 1, decide)
                for step in steps:
                    step(batch)
        return batch.outcome(self._programs.logits_slot)

    def _new(self, images_BCHW: Tensor, counts: Counts) -> RaggedBatch:
        """Return a batch that has entered."""
        return RaggedBatch(self._programs.new_state(images_BCHW), counts, len(self._keys))

    def _ask(self, batch: RaggedBatch, site: int, decide: Decider) -> None:
        """Have a site decided."""
        batch.groups_BL[:, site] = decide(site, partial(self._features, batch, site))
        self._keys.settle(site, site + 1, batch)

    def _features(self, batch: RaggedBatch, site: int) -> Tensor:
        """Return ``features_BF``, float32: the pooled input of a site; absent channels are 0."""
        value = self._programs.lowered.sources[site]
        found = batch.state[self._programs.site_slots[site]]
        return pooled(found, value.width.channels, self._channels(batch, value))

    def _places(self, batch: RaggedBatch, value: Value) -> Numbers:
        """Return ``places_B``, int32: which of its widths a value has."""
        key = self._keys.index(value)
        return np.zeros(batch.size, dtype=np.int32) if key < 0 else batch.places_KB[key]

    def _channels(self, batch: RaggedBatch, value: Value) -> Numbers:
        """Return ``channels_B``, int64, of a value."""
        channels: Numbers = self._keys.options(value).channels[self._places(batch, value)]
        return channels

    def _clean(self, batch: RaggedBatch, value: Value, features: Tensor) -> Tensor:
        """Return a feature map or vectors whose absent channels are zeros, written in place."""
        if not value.width.pruned:
            return features
        features = features.contiguous() if features.ndim == 2 else memory.channels_last(features)
        own_B = self._channels(batch, value) * value.factor
        library.clear(features, own_B, np.full_like(own_B, features.shape[1]))
        return features

    # Binding

    def _compile(self, images_1CHW: Tensor) -> list[list[BatchStep]]:
        """Return the steps of each stage, bound by one image at full width."""
        counts = (ctypes.c_int64 * self._sites * 1)()
        counts[0][:] = [len(bound) - 1 for bound in self._programs.bounds]
        batch = self._new(images_1CHW, counts)
        self._keys.settle(0, self._sites, batch)
        index, stages = 0, []
        sizes: list[tuple[int, ...]] = []  # of what the sites read
        for stage, operations in enumerate(self._programs.lowered.stages):
            bound: list[Bound] = []
            for op in operations:
                bound += self._steps(op, index, batch)
                index += 1
            if stage < self._sites:
                channels, high, wide = batch.state[self._programs.site_slots[stage]].shape[1:]
                sizes.append((high, wide, channels))
            bound.append(FreeSlots(tuple(self._programs.dead[stage])))
            stages.append(bound)
        whole = [step for stage in stages for step in stage]
        buffers = coalesce(whole)
        self._all, self.splits_batch = list(map(_of_batch, buffers)), splits_batch(buffers)
        together = list(stages[0])
        for site, bound in enumerate(stages[1:]):
            together += [NativeStep((self._decision(site, sizes[site]),), self._dtype), *bound]
        self._deciding = _joined(together)
        return [_joined(stage) for stage in stages]

    def _decision(self, site: int, size: tuple[int, ...]) -> Instruction:
        """Return the call that decides a site."""
        value = self._programs.lowered.sources[site]
        options, key = self._keys.options(value), self._keys.index(value)
        slot = self._programs.site_slots[site]
        return decided(size, slot, site, options.channels.tolist(), key)

    def _steps(self, op: Operation, index: int, batch: RaggedBatch) -> list[Bound]:
        """Return what an operation does to a batch; it has been done to this one."""
        bound: list[Bound] = []
        parts = [self._weighted] if op.weight is not None else [self._unweighted]
        if op.weight is not None and batch.state[self._slots[op.source.name]].dtype != self._dtype:
            parts.insert(0, self._cast)
        for part in parts:
            steps = part(op, index, batch)
            for step in _joined(steps):
                step(batch)
            bound += steps
        return bound

    def _cast(self, op: Operation, index: int, batch: RaggedBatch) -> list[Bound]:
        """Return a step that changes what an operation reads to the network's type."""
        slot = self._slots[op.source.name]

        def run(batch: RaggedBatch) -> None:
            batch.state[slot] = batch.state[slot].to(self._dtype)

        return [run]

    def _unweighted(self, op: Operation, index: int, batch: RaggedBatch) -> list[Bound]:
        """Return the step of an operation without weights; all but adds run at full width."""
        if op.kind == "add":
            return [self._add(op)]
        run = self._binder.unweighted(op, batch.state)
        return [run if isinstance(run, NativeStep) else _on_state(run)]

    def _weighted(self, op: Operation, index: int, batch: RaggedBatch) -> list[Bound]:
        """Return the steps of a layer."""
        if op.kind == "linear":
            return self._linear(op, batch)
        return self._convolution(op, index, batch)

    def _convolution(self, op: Operation, index: int, batch: RaggedBatch) -> list[Bound]:
        """Return the steps of a convolution, of the add that it does, and of what follows."""
        to, onto, keys = self._slots[op.output.name], op.onto, self._keys
        features = memory.channels_last(batch.state[self._slots[op.source.name]])
        positive = onto is not None and onto.name in self._programs.lowered.nonnegative
        inside = onto is None or op.activation == NOTHING
        inside = inside or (op.activation.attr == "relu" and positive)
        activation = op.activation if inside else NOTHING
        instructions, room = ([], None) if onto is None else self._stream(op, index, batch)
        layer = RaggedConvolution(op, self._binder, keys, activation, features, room)
        instructions = [*instructions, layer.instruction(self._slots[op.source.name], to)]
        pools, rest = pooling_first(op.followers) if inside else ([], list(op.followers))
        size: tuple[int, ...] = layer.out
        for pool in pools:
            channels, read = keys.options(op.output).channels, keys.index(op.output)
            instructions.append(pooling_instruction(pool, size, to, channels.tolist(), read))
            size = instructions[-1].out or ()
        steps: list[Bound] = [NativeStep(tuple(instructions), self._dtype)]
        if rest or not inside:
            after = NOTHING if inside else op.activation
            steps.append(_on_state(following(to, [after.apply_, *rest])))
        return steps

    def _stream(
        self, op: Operation, index: int, batch: RaggedBatch
    ) -> tuple[list[Instruction], int]:
        """Return what makes the stream ready that a convolution adds to, and its channels.

        There are zeros where only the result has channels.
        """
        onto, own, keys = op.onto, op.conv_output, self._keys
        assert onto is not None
        assert own is not None
        slot, to, lowered = (
            self._slots[onto.name],
            self._slots[op.output.name],
            self._programs.lowered,
        )
        channels, high, wide = batch.state[slot].shape[1:]
        dies = lowered.last_reader[onto.name] == index and onto.name != op.source.name
        room = max(channels, own.width.channels)
        first = Instruction(Opcode.MOVE, slot, to)
        if not (dies and onto.name in lowered.owned) or channels < room:
            first = copied((high, wide, channels), room, slot, to)
        # A value is as wide as the widest of its sites, or always whole where it has none.
        decided = own.width.sites and own.width.sites <= onto.width.sites
        if decided or (not onto.width.sites and own.width.channels <= onto.width.channels):
            return [first], room
        theirs, mine = keys.options(onto).channels, keys.options(own).channels
        rows = [(begin, end) for begin in theirs for end in mine]
        widths = {"read": keys.index(onto), "write": keys.index(own), "writes": len(mine)}
        return [first, cleared((high, wide, room), to, rows, **widths)], room

    def _add(self, op: Operation) -> BatchStep:
        """Return the step of an add that no convolution does."""
        one, other = (op.inputs * 2)[:2]
        to, followers = self._slots[op.output.name], runnable(op.followers)

        def run(batch: RaggedBatch) -> None:
            parts = [
                self._clean(batch, value, batch.state[self._slots[value.name]])
                for value in (one, other)
            ]
            total = op.activation.apply_(add_channels(*parts))
            for follower in followers:
                total = follower(total)
            batch.state[to] = total

        return run

    def _linear(self, op: Operation, batch: RaggedBatch) -> list[Bound]:
        """Return the steps of a linear layer."""
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        layer, followers = (
            RaggedLinear(op, self._binder, self._keys, self._dtype),
            runnable(op.followers),
        )
        like = batch.state[source]
        if layer.bytes <= TINY and like.ndim == 2:
            instruction = layer.instruction(like, source, to, self._keys.index(op.source))
            steps: list[Bound] = [NativeStep((instruction,), self._dtype)]
            after = [_on_state(following(to, op.followers))] if op.followers else []
            return [*steps, *after]

        def run(batch: RaggedBatch) -> None:
            place_B = self._places(batch, op.source)
            out = layer.call(batch.state[source], place_B)
            batch.macs_B += layer.macs[place_B] * (out[0].numel() // out.shape[-1])
            for follower in followers:
                out = follower(out)
            batch.state[to] = out

        return [run]


def _joined(bound: Sequence[Bound]) -> list[BatchStep]:
    """Return steps that do the same, native calls that follow each other as one command buffer."""
    return list(map(_of_batch, coalesce(bound)))


def _of_batch(step: BatchStep | CommandBuffer | FreeSlots) -> BatchStep:
    """Return the step of a batch that runs a command buffer, frees slots, or is one already."""
    if isinstance(step, CommandBuffer):
        return partial(_run_buffer, step)
    return _on_state(step) if isinstance(step, FreeSlots) else step


def _run_buffer(buffer: CommandBuffer, batch: RaggedBatch) -> None:
    """Run a command buffer for a batch."""
    buffer(batch.state, batch.places, batch.macs, batch.deciding)


def _on_state(step: Callable[[State], None]) -> BatchStep:
    """Return the step of a batch that is one of its state alone."""
    return lambda batch: step(batch.state)


def runs_ragged(lowered: Lowered, dtype: torch.dtype) -> bool:
    """Whether a network can run ragged on this machine."""
    operations = [op for stage in lowered.stages for op in stage]
    return library.functions(dtype) is not None and all(map(_runs, operations))


def _runs(op: Operation) -> bool:
    """Whether an operation has a ragged form."""
    if op.conditional and any(isinstance(part, LateNorm) for part in op.followers):
        return False
    if op.kind in ("convolution", "depthwise"):
        assert op.weight is not None
        same = op.source.factor == op.head_factor == 1
        return same and compiled_fits(op.geometry, op.weight, op.groups)
    pruned = any(value.width.pruned for value in op.inputs)
    return op.kind != "opaque" or not (pruned or op.fixed_macs)
