"""Batches whose images have unlike plans, each image of each layer at its own width, in one call.

Values are stored at full width. What an image leaves out is never written and never read, so that
nothing is gathered, nothing is masked, and executed MACs are those of the plans. Needs the calls of
`native`, and a network without grouped convolutions and without statistics that cannot be folded.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes, N images of a part.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.network import native
from runtime_pruning.network.binding import State
from runtime_pruning.network.execution import add_channels
from runtime_pruning.network.graph import Value
from runtime_pruning.network.kernels import (
    NOTHING,
    Call,
    linear,
    linear_runs,
    ours_fit,
    pooled,
)
from runtime_pruning.network.lowering import LateNorm, Lowered, Operation
from runtime_pruning.network.modes import Decider, Outcome
from runtime_pruning.network.native import Numbers
from runtime_pruning.network.programs import Programs

SMALL = 1024 * 1024  # bytes of a linear layer's weights that stay in a cache

Deciding: TypeAlias = frozenset[int] | int  # the sites, or where there are none, the channels


class Widths(NamedTuple):
    """How wide a value is, image by image: channels, and their places among the options."""

    channels_B: Numbers  # int64
    place_B: Numbers  # int32


class Options:
    """The widths that some sites can give a value.

    Args:
        bounds: channels by group count, per site.
        value: what is read or written.
    """

    def __init__(self, bounds: Sequence[tuple[int, ...]], value: Value) -> None:
        self.sites = sorted(value.width.sites)
        every = {count for site in self.sites for count in bounds[site][1:]}
        self.channels = sorted(every or {value.width.channels})
        self._bounds = [np.array(bounds[site], dtype=np.int64) for site in self.sites]
        self._place = np.zeros(self.channels[-1] + 1, dtype=np.int32)
        self._place[self.channels] = np.arange(len(self.channels))

    def widths(self, columns: Sequence[Numbers], batch: int) -> Widths:
        """Return the widths of a batch, from the group counts of the sites so far."""
        if not self.sites:
            full_B = np.full(batch, self.channels[0], dtype=np.int64)
            return Widths(full_B, np.zeros(batch, dtype=np.int32))
        chosen = [
            bounds[columns[site]] for site, bounds in zip(self.sites, self._bounds, strict=True)
        ]
        channels_B = chosen[0] if len(chosen) == 1 else np.maximum.reduce(chosen)
        return Widths(channels_B, self._place[channels_B])


@dataclass
class _Batch:
    """A batch on its way."""

    state: State
    size: int
    macs_B: Numbers
    columns: list[Numbers] = field(default_factory=list)
    known: dict[Deciding, Widths] = field(default_factory=dict)


Step: TypeAlias = Callable[[_Batch], None]


class Ragged:
    """Runs mixed batches of a network.

    Args:
        programs: of the network; its weights and slots are used.
        dtype: of weights and features.
    """

    def __init__(self, programs: Programs, dtype: torch.dtype) -> None:
        self._programs = programs
        self._binder = programs.binder
        self._dtype = dtype
        self._slots = programs.slots
        self._options: dict[Deciding, Options] = {}
        own = native.functions(dtype)
        assert own is not None
        self._own = own
        lowered = programs.lowered
        operations = [op for stage in lowered.stages for op in stage]
        steps = iter([self._step(op, index) for index, op in enumerate(operations)])
        self._stages = [[next(steps) for _ in stage] for stage in lowered.stages]

    def run(self, images_BCHW: Tensor, decide: Decider) -> Outcome:
        """Run a batch; a site is decided for all its images when they have come to it."""
        size = images_BCHW.shape[0]
        batch = _Batch(self._programs.new_state(images_BCHW), size, np.zeros(size, dtype=np.int64))
        for stage, steps in enumerate(self._stages):
            if stage:
                counts = decide(stage - 1, partial(self._features, batch, stage - 1))
                batch.columns.append(np.array(counts))
            for step in steps:
                step(batch)
            for slot in self._programs.dead[stage]:
                batch.state[slot] = None
        plans = np.stack(batch.columns, 1).tolist() if batch.columns else [[]] * size
        logits_BK = batch.state[self._programs.logits_slot]
        return Outcome(logits_BK, list(map(tuple, plans)), batch.macs_B.tolist())

    def _features(self, batch: _Batch, site: int) -> Tensor:
        """Return ``features_BF``, float32: the pooled input of a site; absent channels are 0."""
        value = self._programs.lowered.sources[site]
        found = batch.state[self._programs.site_slots[site]]
        return pooled(found, value.width.channels, self._widths(batch, value).channels_B)

    def _widths(self, batch: _Batch, value: Value) -> Widths:
        """Return a value's widths in a batch."""
        key = value.width.sites or value.width.channels
        found = batch.known.get(key)
        if found is None:
            options = self._options_of(value)
            found = batch.known[key] = options.widths(batch.columns, batch.size)
        return found

    def _options_of(self, value: Value) -> Options:
        """Return the widths that a value can have."""
        key = value.width.sites or value.width.channels
        if key not in self._options:
            self._options[key] = Options(self._programs.bounds, value)
        return self._options[key]

    def _clean(self, batch: _Batch, value: Value) -> Tensor:
        """Return a feature map or vectors whose absent channels are zeros, written in place."""
        features: Tensor = batch.state[self._slots[value.name]]
        if not value.width.pruned:
            return features
        features = features.contiguous() if features.ndim == 2 else native.channels_last(features)
        own_B = self._widths(batch, value).channels_B * value.factor
        native.clear(features, own_B, np.full_like(own_B, features.shape[1]))
        return features

    # Steps

    def _step(self, op: Operation, index: int) -> Step:
        """Return what an operation does to a batch."""
        if op.kind == "linear":
            return self._linear(op)
        if op.weight is not None:
            return self._convolution(op, index)
        if op.kind == "add":
            return self._add(op)
        run = self._binder.unweighted(op)
        return lambda batch: run(batch.state)

    def _convolution(self, op: Operation, index: int) -> Step:
        """Return the step of a convolution, and of the add that it does."""
        layer = _Layer(self, op)
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        onto = op.onto
        positive = onto is not None and onto.name in self._programs.lowered.nonnegative
        inside = onto is None or (op.activation.attr == "relu" and positive)
        activation = op.activation if inside or op.activation == NOTHING else NOTHING

        def run(batch: _Batch) -> None:
            features = native.channels_last(batch.state[source].to(self._dtype))
            place_B = layer.places(batch)
            stream = None if onto is None else self._stream(batch, op, index)
            out = layer.call(features, stream, place_B, activation.limits)
            batch.macs_B += layer.macs[place_B]
            if not inside:
                op.activation.apply_(out)
            for follower in op.followers:
                out = follower(out)
            batch.state[to] = out

        return run

    def _stream(self, batch: _Batch, op: Operation, index: int) -> Tensor:
        """Return what a convolution adds its result to, with zeros where only that has channels."""
        onto, own = op.onto, op.conv_output
        assert onto is not None
        assert own is not None
        stream: Tensor = native.channels_last(batch.state[self._slots[onto.name]])
        lowered = self._programs.lowered
        dies = lowered.last_reader[onto.name] == index and onto.name != op.source.name
        room = max(stream.shape[1], own.width.channels)
        if not (dies and onto.name in lowered.owned) or stream.shape[1] < room:
            copy = native.empty(batch.size, room, (stream.shape[2], stream.shape[3]), stream)
            copy[:, : stream.shape[1]] = stream
            stream = copy
        theirs_B = self._widths(batch, onto).channels_B
        mine_B = self._widths(batch, own).channels_B
        if (mine_B > theirs_B).any():
            native.clear(stream, theirs_B, mine_B)
        return stream

    def _add(self, op: Operation) -> Step:
        """Return the step of an add that no convolution does."""
        one, other = (op.inputs * 2)[:2]
        to = self._slots[op.output.name]

        def run(batch: _Batch) -> None:
            total = add_channels(self._clean(batch, one), self._clean(batch, other))
            total = op.activation.apply_(total)
            for follower in op.followers:
                total = follower(total)
            batch.state[to] = total

        return run

    def _linear(self, op: Operation) -> Step:
        """Return the step of a linear layer."""
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        layer = _Linear(self, op)

        def run(batch: _Batch) -> None:
            features = batch.state[source].to(self._dtype)
            place_B = self._widths(batch, op.source).place_B
            out = layer.call(features, place_B)
            batch.macs_B += layer.macs[place_B] * (out[0].numel() // out.shape[-1])
            for follower in op.followers:
                out = follower(out)
            batch.state[to] = out

        return run


class _Linear:
    """A linear layer at all the widths that it reads.

    Attributes:
        macs: per vector, by place of the width.
    """

    def __init__(self, ragged: Ragged, op: Operation) -> None:
        binder, outputs = ragged._binder, op.output.width.channels
        reads = ragged._options_of(op.source).channels
        widths = [{op.source.name: read, op.output.name: outputs} for read in reads]
        self._layers = [binder.layer(op, width) for width in widths]
        inputs = [layer.weight.shape[1] for layer in self._layers]
        self.macs = np.array(inputs, dtype=np.int64) * self._layers[0].weight.shape[0]
        self._packed = [binder.packed(op, layer) for layer in self._layers]
        self._small = self._layers[-1].weight.nbytes <= SMALL
        rows = [
            packed.row(count, self._layers[0].weight.shape[0])
            for packed, count in zip(self._packed, inputs, strict=True)
        ]
        self._rows = np.array(rows, dtype=np.int64)
        self._convolve = ragged._own.convolve
        self._calls: dict[int, Call] = {}
        self._rooms: dict[int, ctypes.Array[ctypes.c_char]] = {}

    def call(self, features: Tensor, place_B: Numbers) -> Tensor:
        """Return what the layer makes of each image's first inputs."""
        found = np.unique(place_B)
        if len(found) == 1:
            return self._alike(features, found[0])
        if self._small and features.ndim == 2:
            return self._each(features.contiguous(), place_B)
        rows = [torch.from_numpy(np.flatnonzero(place_B == place)) for place in found]
        parts = [self._alike(features[own], place) for own, place in zip(rows, found, strict=True)]
        out = parts[0].new_empty(features.shape[0], *parts[0].shape[1:])
        for own, part in zip(rows, parts, strict=True):
            out[own] = part
        return out

    def _alike(self, features: Tensor, place: int) -> Tensor:
        """Return the result of images that share a width."""
        layer = self._layers[place]
        features = features[..., : layer.weight.shape[1]]
        if place not in self._calls:
            ours = self._packed[place] if linear_runs(features) else None
            self._calls[place] = linear(layer, ours, features)
        return self._calls[place](features)

    def _each(self, features_BC: Tensor, place_B: Numbers) -> Tensor:
        """Return the result of images of unlike widths, one by one: the weights stay in cache."""
        batch, room = features_BC.shape
        outputs = self._layers[0].weight.shape[0]
        if room not in self._rooms:
            self._rooms[room] = native.ALONE.call(room, outputs, NOTHING.limits, add=False)
        call = self._rooms[room]
        out = features_BC.new_empty(batch, outputs)
        self._convolve(
            *(ctypes.addressof(call), self._rows.ctypes.data, place_B.ctypes.data),
            *(features_BC.data_ptr(), out.data_ptr(), batch, torch.get_num_threads()),
        )
        return out


class _Layer:
    """A convolution at all its widths.

    Attributes:
        macs: per image, by place of the pair of widths; known after the first call.
    """

    def __init__(self, ragged: Ragged, op: Operation) -> None:
        self._ragged = ragged
        self._op = op
        self._own = op.output if op.conv_output is None else op.conv_output
        reads = ragged._options_of(op.source).channels
        writes = ragged._options_of(self._own).channels
        assert op.weight is not None
        self._alone = op.kind == "depthwise"
        pack = native.PackedDepthwise if self._alone else native.Packed
        self._convolve = ragged._own.depthwise if self._alone else ragged._own.convolve
        self._packed = []
        for read in reads if op.conditional else reads[-1:]:
            full = {op.source.name: read, self._own.name: read if self._alone else writes[-1]}
            layer = ragged._binder.layer(op, full)
            self._packed.append(pack(layer.weight, layer.bias))
        rows = [
            self._packed[place if op.conditional else 0].row(read, write)
            for place, read in enumerate(reads)
            for write in ([read] if self._alone else writes)
        ]
        self._rows = np.array(rows, dtype=np.int64)
        self._writes = len(writes)
        self._room = writes[-1]
        self._kernel = (int(op.weight.shape[2]), int(op.weight.shape[3]))
        self._calls: dict[tuple[int, ...], tuple[native.Frame, ctypes.Array[ctypes.c_char]]] = {}
        self.macs = np.zeros(len(rows), dtype=np.int64)

    def places(self, batch: _Batch) -> Numbers:
        """Return the place of each image's pair of widths."""
        read_B: Numbers = self._ragged._widths(batch, self._op.source).place_B
        if self._alone:
            return read_B
        write_B = self._ragged._widths(batch, self._own).place_B
        place_B: Numbers = read_B * np.int32(self._writes) + write_B
        return place_B

    def call(
        self, features: Tensor, out: Tensor | None, place_B: Numbers, limits: tuple[float, float]
    ) -> Tensor:
        """Return the convolution's result, added to ``out`` if there is one."""
        room = self._room if out is None else out.shape[1]
        key = (*features.shape[1:], room)
        found = self._calls.get(key)
        if found is None:
            shape = self._op.geometry
            assert shape is not None
            frame = native.Frame.of(features, self._kernel, shape.stride, shape.padding)
            call = frame.call(features.shape[1], room, limits, add=out is not None)
            found = self._calls[key] = (frame, call)
            pixels = frame.out[0] * frame.out[1] * self._kernel[0] * self._kernel[1]
            inputs = 1 if self._alone else self._rows[:, 2]
            self.macs = inputs * self._rows[:, 3] * pixels
        frame, call = found
        if out is None:
            out = native.empty(features.shape[0], room, frame.out, features)
        self._convolve(
            *(ctypes.addressof(call), self._rows.ctypes.data, place_B.ctypes.data),
            *(features.data_ptr(), out.data_ptr(), features.shape[0], torch.get_num_threads()),
        )
        return out


def runs_ragged(lowered: Lowered, dtype: torch.dtype) -> bool:
    """Whether a network can run ragged on this machine."""
    operations = [op for stage in lowered.stages for op in stage]
    return native.functions(dtype) is not None and all(map(_runs, operations))


def _runs(op: Operation) -> bool:
    """Whether an operation has a ragged form."""
    if op.conditional and any(isinstance(part, LateNorm) for part in op.followers):
        return False
    if op.kind in ("convolution", "depthwise"):
        assert op.weight is not None
        same = op.source.factor == op.head_factor == 1
        return same and ours_fit(op.geometry, op.weight, op.groups)
    return op.kind != "opaque" or not any(value.width.pruned for value in op.inputs)
