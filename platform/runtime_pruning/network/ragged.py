"""Batches whose images have unlike plans, each image of each layer at its own width, in one call.

Values are stored at full width. What an image leaves out is never written and never read, so that
nothing is gathered, nothing is masked, and executed MACs are those of the plans. Needs the calls of
`native`, and a network without grouped convolutions and without statistics that cannot be folded.

Near full width a layer is often faster whole, as the dense network runs it: three quarters of a
register of channels take as long as all, and the calls for one width are the fastest of several.
A mixed run does so, layer by layer, by times that it took of each width; then executed MACs are
more than the plans'.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes, N images of a part.
"""

import ctypes
import math
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
    Activation,
    Call,
    MaxPool,
    best_seconds,
    convolution,
    convolution_onto,
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
LEAST_GAIN = 0.02  # of a layer's time at full width; less is not worth looking for
FEW = 8  # images that a layer is timed on, or one where that takes long
LONG = 0.01  # seconds

Deciding: TypeAlias = frozenset[int] | int  # the sites, or where there are none, the channels
WholeCall: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]


class Widths(NamedTuple):
    """How wide a value is, image by image: channels, and their places among the options."""

    channels_B: Numbers  # int64
    place_B: Numbers  # int32
    address: int  # of the places; it takes a microsecond to ask for

    @classmethod
    def of(cls, channels_B: Numbers, place_B: Numbers) -> "Widths":
        """Return such widths."""
        return cls(channels_B, place_B, place_B.ctypes.data)


def _deciding(value: Value) -> Deciding:
    """Return what decides how wide a value is."""
    return value.width.sites or value.width.channels


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
            return Widths.of(full_B, np.zeros(batch, dtype=np.int32))
        chosen = [
            bounds[columns[site]] for site, bounds in zip(self.sites, self._bounds, strict=True)
        ]
        channels_B = chosen[0] if len(chosen) == 1 else np.maximum.reduce(chosen)
        return Widths.of(channels_B, self._place[channels_B])


@dataclass
class _Batch:
    """A batch on its way."""

    state: State
    size: int
    mixed: bool  # whether a layer may run whole
    columns: list[Numbers] = field(default_factory=list)
    known: dict[Deciding, Widths] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.macs_B: Numbers = np.zeros(self.size, dtype=np.int64)
        self.macs: int = self.macs_B.ctypes.data


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

    def run(self, images_BCHW: Tensor, decide: Decider, *, mixed: bool = False) -> Outcome:
        """Run a batch; a site is decided for all its images when they have come to it.

        Args:
            images_BCHW: float.
            decide: tells each image's groups.
            mixed: run each layer whole that is faster so.
        """
        size = images_BCHW.shape[0]
        batch = _Batch(self._programs.new_state(images_BCHW), size, mixed)
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
        key = _deciding(value)
        found = batch.known.get(key)
        if found is None:
            options = self._options_of(value)
            found = batch.known[key] = options.widths(batch.columns, batch.size)
        return found

    def _options_of(self, value: Value) -> Options:
        """Return the widths that a value can have."""
        key = _deciding(value)
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
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        onto = op.onto
        positive = onto is not None and onto.name in self._programs.lowered.nonnegative
        inside = onto is None or (op.activation.attr == "relu" and positive)
        activation = op.activation if inside or op.activation == NOTHING else NOTHING
        layer = _Layer(self, op, activation)
        stream_of = None if onto is None else self._stream(op, index)

        def run(batch: _Batch) -> None:
            features = native.channels_last(batch.state[source].to(self._dtype))
            stream = None if stream_of is None else stream_of(batch)
            if batch.mixed and layer.whole_pays(features, stream, batch):
                batch.state[source] = features
                self._clean(batch, op.source)
                out = layer.run_whole(features, stream, batch)
            else:
                out = layer.run(features, stream, batch)
            if not inside:
                op.activation.apply_(out)
            for follower in op.followers:
                if isinstance(follower, MaxPool):
                    out = follower(out, self._widths(batch, op.output).channels_B)
                else:
                    out = follower(out)
            batch.state[to] = out

        return run

    def _stream(self, op: Operation, index: int) -> Callable[[_Batch], Tensor]:
        """Return what finds the stream that a convolution adds its result to.

        There are zeros where only the result has channels.
        """
        onto, own = op.onto, op.conv_output
        assert onto is not None
        assert own is not None
        slot, lowered = self._slots[onto.name], self._programs.lowered
        dies = lowered.last_reader[onto.name] == index and onto.name != op.source.name
        owned = dies and onto.name in lowered.owned
        # As wide as the widest of its sites, or always at full width.
        covers = own.width.sites <= onto.width.sites if onto.width.sites else True
        never = covers and own.width.channels <= onto.width.channels

        def stream_of(batch: _Batch) -> Tensor:
            stream: Tensor = native.channels_last(batch.state[slot])
            room = max(stream.shape[1], own.width.channels)
            if not owned or stream.shape[1] < room:
                copy = native.empty(batch.size, room, (stream.shape[2], stream.shape[3]), stream)
                copy[:, : stream.shape[1]] = stream
                stream = copy
            if not never:
                theirs_B = self._widths(batch, onto).channels_B
                mine_B = self._widths(batch, own).channels_B
                if (mine_B > theirs_B).any():
                    native.clear(stream, theirs_B, mine_B)
            return stream

        return stream_of

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
        self._outputs = self._layers[0].weight.shape[0]
        inputs = [layer.weight.shape[1] for layer in self._layers]
        self.macs = np.array(inputs, dtype=np.int64) * self._outputs
        self._packed = [binder.packed(op, layer) for layer in self._layers]
        self._small = self._layers[-1].weight.nbytes <= SMALL
        self._inputs = np.array(inputs, dtype=np.int64)
        shared = all(packed is self._packed[0] for packed in self._packed)
        self._even = shared and all(self._inputs * ragged._dtype.itemsize % 4 == 0)
        rows = [
            packed.row(count, self._outputs)
            for packed, count in zip(self._packed, inputs, strict=True)
        ]
        self._rows = np.array(rows, dtype=np.int64)
        self._convolve, self._linear = ragged._own.convolve, ragged._own.linear
        self._calls: dict[int, Call] = {}
        self._rooms: dict[int, ctypes.Array[ctypes.c_char]] = {}

    def call(self, features: Tensor, place_B: Numbers) -> Tensor:
        """Return what the layer makes of each image's first inputs."""
        if place_B.min() == place_B.max():
            return self._alike(features, int(place_B[0]))
        if self._small and features.ndim == 2:
            return self._each(features.contiguous(), place_B)
        if self._even and linear_runs(features):
            return self._together(features, place_B)
        found = np.unique(place_B)
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
        out = features_BC.new_empty(features_BC.shape[0], self._outputs)
        self._convolve(
            *(self._room(features_BC), self._rows.ctypes.data, place_B.ctypes.data, None, 1, None),
            *(features_BC.data_ptr(), out.data_ptr(), len(out), torch.get_num_threads()),
        )
        return out

    def _together(self, features_BC: Tensor, place_B: Numbers) -> Tensor:
        """Return the result of images of unlike widths; the weights are read once for all."""
        order_B = np.argsort(-place_B, kind="stable")
        inputs_B = self._inputs[place_B[order_B]]
        rows_B = torch.from_numpy(order_B)
        features_BC = features_BC[rows_B]
        own = features_BC.new_empty(features_BC.shape[0], self._outputs)
        self._linear(
            *(self._room(features_BC), self._rows[-1:].ctypes.data, inputs_B.ctypes.data),
            *(features_BC.data_ptr(), own.data_ptr(), len(own), torch.get_num_threads()),
        )
        out = torch.empty_like(own)
        out[rows_B] = own
        return out

    def _room(self, features_BC: Tensor) -> int:
        """Return the address of the call on vectors of this length."""
        room = features_BC.shape[1]
        if room not in self._rooms:
            self._rooms[room] = native.ALONE.call(room, self._outputs, NOTHING.limits, add=False)
        return ctypes.addressof(self._rooms[room])


class _Layer:
    """A convolution at all its widths.

    Args:
        ragged: whose it is.
        op: the operation.
        activation: what a call does to its result.
    """

    def __init__(self, ragged: Ragged, op: Operation, activation: Activation) -> None:
        self._ragged = ragged
        self._op = op
        self._activation = activation
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
            self._full = ragged._binder.layer(op, full)
            self._packed.append(pack(self._full.weight, self._full.bias))
        rows = [
            self._packed[place if op.conditional else 0].row(read, write)
            for place, read in enumerate(reads)
            for write in ([read] if self._alone else writes)
        ]
        self._rows = np.array(rows, dtype=np.int64)
        self._writes = 1 if self._alone else len(writes)
        self._room = writes[-1]
        self._kernel = (int(op.weight.shape[2]), int(op.weight.shape[3]))
        self._frame: native.Frame | None = None
        self._whole: WholeCall | None = None
        self._gain: Numbers | None = None  # share of the time at full width, by place

    def run(self, features: Tensor, out: Tensor | None, batch: _Batch) -> Tensor:
        """Return the convolution's result, added to ``out`` if there is one."""
        read = self._ragged._widths(batch, self._op.source)
        write = self._ragged._widths(batch, self._own)
        return self._called(features, out, read.address, write.address, batch.macs)

    def _called(
        self, features: Tensor, out: Tensor | None, read: int, write: int, macs: int | None
    ) -> Tensor:
        """Return the result of images at widths of their own; count its MACs."""
        if self._frame is None:
            self._frame = self._bind(features, out)
        batch = features.shape[0]
        if out is None:
            out = native.empty(batch, self._room, self._frame.out, features)
        self._convolve(
            *(self._call, self._widths, read, None if self._alone else write, self._writes, macs),
            *(features.data_ptr(), out.data_ptr(), batch, torch.get_num_threads()),
        )
        return out

    def _bind(self, features: Tensor, out: Tensor | None) -> native.Frame:
        """Make what is the same for all batches, since images are of one size; return the frame."""
        shape = self._op.geometry
        assert shape is not None
        frame = native.Frame.of(features, self._kernel, shape.stride, shape.padding)
        room = self._room if out is None else out.shape[1]
        limits = self._activation.limits
        self._held = frame.call(features.shape[1], room, limits, add=out is not None)
        self._call, self._widths = ctypes.addressof(self._held), self._rows.ctypes.data
        inputs = 1 if self._alone else self._rows[-1, 2]
        pixels = math.prod(frame.out) * math.prod(self._kernel)
        self._most_macs = int(inputs * self._rows[-1, 3]) * pixels
        return frame

    # At full width

    def whole_pays(self, features: Tensor, out: Tensor | None, batch: _Batch) -> bool:
        """Whether full width is faster for a batch, and changes no more than what is absent."""
        if self._op.conditional:
            return False
        if self._gain is None:
            self._gain = self._timed(features, out)
        if self._whole is None:
            return False
        place_B = self._ragged._widths(batch, self._op.source).place_B
        if not self._alone:
            write_B = self._ragged._widths(batch, self._own).place_B
            if out is not None and write_B.min() < self._writes - 1:
                return False  # it would add to channels that are there
            place_B = place_B * self._writes + write_B
        return bool(self._gain[place_B].sum() > 0)

    def run_whole(self, features: Tensor, out: Tensor | None, batch: _Batch) -> Tensor:
        """Return the result at full width; absent channels of what is read must be zeros."""
        assert self._whole is not None
        batch.macs_B += self._most_macs
        return self._whole(features, out)

    def _timed(self, features: Tensor, out: Tensor | None) -> Numbers:
        """Return what full width saves, in times of it, by place; keep its call if that is any.

        What it takes to set absent channels to zero is counted.
        """
        like = native.channels_last(torch.rand(features.shape).to(features.dtype))
        onto = None if out is None else torch.zeros_like(out)
        whole = self._whole_call(like, out)
        (alone,) = best_seconds([partial(whole, like[:1], None if onto is None else onto[:1])])
        few = FEW if alone < LONG else 1
        like, onto = like[:few], None if onto is None else onto[:few]
        none_B = np.full(len(like), features.shape[1], dtype=np.int64)

        def cleaned() -> None:
            native.clear(like, none_B * 3 // 4, none_B)
            whole(like, onto)

        def at(place: int) -> Callable[[], object]:
            read, write = divmod(place, self._writes)
            read_B, write_B = (np.full(len(like), n, dtype=np.int32) for n in (read, write))

            def call() -> None:
                self._called(like, onto, read_B.ctypes.data, write_B.ctypes.data, None)

            return call

        places = range(len(self._rows))
        *own, full = best_seconds([*(at(place) for place in places), cleaned])
        gain = np.array(own) / full - 1
        if gain.max() > LEAST_GAIN:
            self._whole = whole
        return gain

    def _whole_call(self, like: Tensor, out: Tensor | None) -> WholeCall:
        """Return the fastest call at full width."""
        layer, activation = self._full, self._activation
        if out is None:
            call = convolution(layer, activation, like, fused=True)
            return lambda features, _: call(features)
        room, rows = out.shape[1], layer.weight.shape[0]
        add = convolution_onto(layer, activation, like, room=room, fused=True)

        def run(features: Tensor, onto: Tensor | None) -> Tensor:
            assert onto is not None
            add(features, onto if rows == room else onto.narrow(1, 0, rows))
            return onto

        return run


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
