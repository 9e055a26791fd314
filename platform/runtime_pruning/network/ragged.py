"""Batches whose images have unlike plans, each image of each layer at its own width, in one call.

Values are stored at full width. What an image leaves out is never written and never read, so that
nothing is gathered, nothing is masked, and executed MACs are those of the plans. Needs the calls of
`native`, and a network without grouped convolutions and without statistics that cannot be folded.

Calls that follow each other are played together (`tape`), across decisions that are known before.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes, N images of a part.
"""

import ctypes
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.network import native
from runtime_pruning.network.binding import following
from runtime_pruning.network.execution import add_channels
from runtime_pruning.network.graph import Value
from runtime_pruning.network.kernels import (
    NOTHING,
    Activation,
    Call,
    linear,
    linear_runs,
    ours_fit,
    pooled,
)
from runtime_pruning.network.lowering import LateNorm, Lowered, Operation
from runtime_pruning.network.modes import Decider, Outcome, Planned
from runtime_pruning.network.moves import cleared, copied, decided, pooling_first
from runtime_pruning.network.native import Counts, Decisions, Numbers
from runtime_pruning.network.programs import Programs
from runtime_pruning.network.tape import (
    Forgetting,
    Kind,
    Record,
    Recorded,
    State,
    Tape,
    joined,
    plays_apart,
)

SMALL = 1024 * 1024  # bytes of a linear layer's weights that stay in a cache
TINY = 64 * 1024  # likewise, in the first


class Options:
    """The widths that some sites can give a value.

    Args:
        bounds: channels by group count, per site.
        value: what is read or written.

    Attributes:
        sites: that decide; none where the width is always the same.
        channels: of each width, in order; a *place* is an index into it.
    """

    def __init__(self, bounds: Sequence[tuple[int, ...]], value: Value) -> None:
        self.sites = sorted(value.width.sites)
        every = {count for site in self.sites for count in bounds[site][1:]}
        self.channels = np.array(sorted(every or {value.width.channels}), dtype=np.int64)
        own = [bounds[site] for site in self.sites]
        self._counts = max(map(len, own), default=0)
        places = [
            np.searchsorted(self.channels, [*b, *b[-1:] * (self._counts - len(b))]) for b in own
        ]
        # What the addresses of a key point to; a width's place grows with it.
        self._table = np.array(places, dtype=np.int32)
        self._sites = np.array(self.sites, dtype=np.int64)

    def key(self) -> bytes:
        """Return a ``Key`` of the source."""
        addresses = self._sites.ctypes.data, self._table.ctypes.data
        return struct.pack("4q", len(self.sites), self._counts, *addresses)


class Keys:
    """Which sites decide how wide the values are, in the order in which that is known.

    Args:
        bounds: channels by group count, per site.
        values: of the network.
    """

    def __init__(self, bounds: Sequence[tuple[int, ...]], values: Iterable[Value]) -> None:
        by_sites = {v.width.sites: Options(bounds, v) for v in values if v.width.sites}
        ordered = sorted(by_sites, key=lambda sites: (max(sites), sorted(sites)))
        self._bounds = bounds
        self._options = {sites: by_sites[sites] for sites in ordered}
        self._index = {sites: i for i, sites in enumerate(ordered)}
        last = [max(sites) for sites in ordered]
        known = [sum(site < end for site in last) for end in range(len(bounds) + 1)]
        self._known = (ctypes.c_int64 * len(known))(*known)
        self._known_at = ctypes.addressof(self._known)
        self._constant: dict[int, Options] = {}  # of values that no site decides, by channels
        table = b"".join(options.key() for options in self._options.values())
        self._table = ctypes.create_string_buffer(table, len(table))
        self._table_at = ctypes.addressof(self._table)
        self._settle = native.settle()

    def __len__(self) -> int:
        return len(self._index)

    def index(self, value: Value) -> int:
        """Return which of the keys a value has; below zero: its width is always the same."""
        return self._index.get(value.width.sites, -1)

    def options(self, value: Value) -> Options:
        """Return the widths that a value can have."""
        found = self._options.get(value.width.sites)
        if found is not None:
            return found
        channels = value.width.channels
        if channels not in self._constant:
            self._constant[channels] = Options(self._bounds, value)
        return self._constant[channels]

    def settle(self, first: int, last: int, batch: "_Batch") -> None:
        """Find the places of widths that the decisions of sites ``[first, last)`` settle.

        Args:
            first: site.
            last: likewise.
            batch: holds the decisions of all sites before ``last``.
        """
        begin, end = self._known[first], self._known[last]
        if begin == end:
            return
        size = struct.calcsize("4q")
        places = batch.places + begin * batch.size * ctypes.sizeof(ctypes.c_int32)
        self._settle(
            *(self._table_at + begin * size, end - begin, batch.groups),
            *(len(self._bounds), batch.size, places),
        )

    def let_decide(self, decisions: Decisions, batch: "_Batch") -> None:
        """Give a batch its ``Deciding`` of the source."""
        told = (*decisions.state, batch.groups, len(self._bounds), self._table_at, self._known_at)
        batch.held = (ctypes.c_int64 * 10)(decisions.calls, decisions.settled, *told, batch.places)
        batch.deciding = ctypes.addressof(batch.held)


class _Batch:
    """A batch on its way.

    Args:
        state: its values.
        counts: group counts (B, L); those that are not known yet are written here.
        keys: of the network.

    Attributes:
        counts: see above; likewise ``spent``, MACs so far, by image.
        groups: address of ``counts``; likewise ``places``, int32 (K, B), and ``macs``.
        deciding: address of a ``Deciding`` of the source.
        held: what that points to.
    """

    def __init__(self, state: State, counts: Counts, keys: int) -> None:
        self.state, self.counts = state, counts
        self.size = len(counts)
        self.spent = (ctypes.c_int64 * self.size)()
        self._places = (ctypes.c_int32 * self.size * keys)()
        self.groups = ctypes.addressof(counts)
        self.places = ctypes.addressof(self._places)
        self.macs = ctypes.addressof(self.spent)
        self.deciding: int | None = None
        self.held: Any = None

    @cached_property
    def groups_BL(self) -> Numbers:
        """What was decided, int64; it can be written to."""
        return np.asarray(self.counts)

    @cached_property
    def macs_B(self) -> Numbers:
        """MACs so far, int64; likewise."""
        return np.asarray(self.spent)

    @cached_property
    def places_KB(self) -> Numbers:
        """Places of widths, int32."""
        return np.asarray(self._places)

    def outcome(self, logits: int) -> Outcome:
        """Return what came of it; the slot of the logits is given."""
        return Outcome(self.state[logits], self.counts, self.spent)


Step: TypeAlias = Callable[[_Batch], None]
Bound: TypeAlias = Step | Recorded | Forgetting


class Ragged:
    """Runs mixed batches of a network.

    Args:
        programs: of the network; its weights and slots are used.
        dtype: of weights and features.

    Attributes:
        apart: whether a batch is taken apart inside a compiled call; known after the first run.
    """

    def __init__(self, programs: Programs, dtype: torch.dtype) -> None:
        self._programs = programs
        self._binder = programs.binder
        self._dtype = dtype
        self._slots = programs.slots
        self._sites = len(programs.bounds)
        own = native.functions(dtype)
        assert own is not None
        self._own = own
        values = [v for stage in programs.lowered.stages for op in stage for v in op.widths]
        self._keys = Keys(programs.bounds, values)
        self._stages: list[list[Step]] | None = None
        self.apart = False
        self._all: list[Step] = []  # of all stages
        self._deciding: list[Step] = []  # likewise, with the decisions between them

    def run(self, images_BCHW: Tensor, decide: Decider) -> Outcome:
        """Run a batch; a site is decided for all its images when they have come to it.

        Args:
            images_BCHW: float.
            decide: tells each image's groups.
        """
        if self._stages is None:
            self._stages = self._bind(images_BCHW[:1])
        if isinstance(decide, Planned):
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

    def _new(self, images_BCHW: Tensor, counts: Counts) -> _Batch:
        """Return a batch that has entered."""
        return _Batch(self._programs.new_state(images_BCHW), counts, len(self._keys))

    def _ask(self, batch: _Batch, site: int, decide: Decider) -> None:
        """Have a site decided."""
        batch.groups_BL[:, site] = decide(site, partial(self._features, batch, site))
        self._keys.settle(site, site + 1, batch)

    def _features(self, batch: _Batch, site: int) -> Tensor:
        """Return ``features_BF``, float32: the pooled input of a site; absent channels are 0."""
        value = self._programs.lowered.sources[site]
        found = batch.state[self._programs.site_slots[site]]
        return pooled(found, value.width.channels, self._channels(batch, value))

    def _places(self, batch: _Batch, value: Value) -> Numbers:
        """Return ``places_B``, int32: which of its widths a value has."""
        key = self._keys.index(value)
        return np.zeros(batch.size, dtype=np.int32) if key < 0 else batch.places_KB[key]

    def _channels(self, batch: _Batch, value: Value) -> Numbers:
        """Return ``channels_B``, int64, of a value."""
        channels: Numbers = self._keys.options(value).channels[self._places(batch, value)]
        return channels

    def _clean(self, batch: _Batch, value: Value, features: Tensor) -> Tensor:
        """Return a feature map or vectors whose absent channels are zeros, written in place."""
        if not value.width.pruned:
            return features
        features = features.contiguous() if features.ndim == 2 else native.channels_last(features)
        own_B = self._channels(batch, value) * value.factor
        native.clear(features, own_B, np.full_like(own_B, features.shape[1]))
        return features

    # Binding

    def _bind(self, images_1CHW: Tensor) -> list[list[Step]]:
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
            bound.append(Forgetting(tuple(self._programs.dead[stage])))
            stages.append(bound)
        whole = [step for stage in stages for step in stage]
        tapes = joined(whole)
        self._all, self.apart = list(map(_of_batch, tapes)), plays_apart(tapes)
        together = list(stages[0])
        for site, bound in enumerate(stages[1:]):
            together += [Recorded((self._decision(site, sizes[site]),), self._dtype), *bound]
        self._deciding = _joined(together)
        return [_joined(stage) for stage in stages]

    def _decision(self, site: int, size: tuple[int, ...]) -> Record:
        """Return the call that decides a site."""
        value = self._programs.lowered.sources[site]
        options, key = self._keys.options(value), self._keys.index(value)
        slot = self._programs.site_slots[site]
        return decided(size, slot, site, options.channels.tolist(), key)

    def _steps(self, op: Operation, index: int, batch: _Batch) -> list[Bound]:
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

    def _cast(self, op: Operation, index: int, batch: _Batch) -> list[Bound]:
        """Return a step that changes what an operation reads to the network's type."""
        slot = self._slots[op.source.name]

        def run(batch: _Batch) -> None:
            batch.state[slot] = batch.state[slot].to(self._dtype)

        return [run]

    def _unweighted(self, op: Operation, index: int, batch: _Batch) -> list[Bound]:
        """Return the step of an operation without weights; all but adds run at full width."""
        if op.kind == "add":
            return [self._add(op)]
        run = self._binder.unweighted(op, batch.state)
        return [run if isinstance(run, Recorded) else _on_state(run)]

    def _weighted(self, op: Operation, index: int, batch: _Batch) -> list[Bound]:
        """Return the steps of a layer."""
        if op.kind == "linear":
            return self._linear(op, batch)
        return self._convolution(op, index, batch)

    def _convolution(self, op: Operation, index: int, batch: _Batch) -> list[Bound]:
        """Return the steps of a convolution, of the add that it does, and of what follows."""
        to, onto, keys = self._slots[op.output.name], op.onto, self._keys
        features = native.channels_last(batch.state[self._slots[op.source.name]])
        positive = onto is not None and onto.name in self._programs.lowered.nonnegative
        inside = onto is None or op.activation == NOTHING
        inside = inside or (op.activation.attr == "relu" and positive)
        activation = op.activation if inside else NOTHING
        records, room = ([], None) if onto is None else self._stream(op, index, batch)
        layer = _Layer(self, op, activation, features, room)
        records = [*records, layer.record(self._slots[op.source.name], to)]
        pools, rest = pooling_first(op.followers) if inside else ([], list(op.followers))
        size: tuple[int, ...] = layer.out
        for pool in pools:
            channels, read = keys.options(op.output).channels, keys.index(op.output)
            records.append(pool.record(size, to, channels.tolist(), read))
            size = records[-1].out or ()
        steps: list[Bound] = [Recorded(tuple(records), self._dtype)]
        if rest or not inside:
            after = NOTHING if inside else op.activation
            steps.append(_on_state(following(to, [after.apply_, *rest])))
        return steps

    def _stream(self, op: Operation, index: int, batch: _Batch) -> tuple[list[Record], int]:
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
        first = Record(Kind.MOVE, slot, to)
        if not (dies and onto.name in lowered.owned) or channels < room:
            first = copied((high, wide, channels), room, slot, to)
        # As wide as the widest of its sites, or always at full width.
        covers = own.width.sites <= onto.width.sites if onto.width.sites else True
        if covers and own.width.channels <= onto.width.channels:
            return [first], room
        theirs, mine = keys.options(onto).channels, keys.options(own).channels
        rows = [(begin, end) for begin in theirs for end in mine]
        widths = {"read": keys.index(onto), "write": keys.index(own), "writes": len(mine)}
        return [first, cleared((high, wide, room), to, rows, **widths)], room

    def _add(self, op: Operation) -> Step:
        """Return the step of an add that no convolution does."""
        one, other = (op.inputs * 2)[:2]
        to = self._slots[op.output.name]

        def run(batch: _Batch) -> None:
            parts = [
                self._clean(batch, value, batch.state[self._slots[value.name]])
                for value in (one, other)
            ]
            total = op.activation.apply_(add_channels(*parts))
            for follower in op.followers:
                total = follower(total)
            batch.state[to] = total

        return run

    def _linear(self, op: Operation, batch: _Batch) -> list[Bound]:
        """Return the steps of a linear layer."""
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        layer = _Linear(self, op)
        like = batch.state[source]
        if layer.bytes <= TINY and like.ndim == 2:
            record = layer.record(like, source, to, self._keys.index(op.source))
            steps: list[Bound] = [Recorded((record,), self._dtype)]
            after = [_on_state(following(to, op.followers))] if op.followers else []
            return [*steps, *after]

        def run(batch: _Batch) -> None:
            place_B = self._places(batch, op.source)
            out = layer.call(batch.state[source], place_B)
            batch.macs_B += layer.macs[place_B] * (out[0].numel() // out.shape[-1])
            for follower in op.followers:
                out = follower(out)
            batch.state[to] = out

        return [run]


def _joined(bound: Sequence[Bound]) -> list[Step]:
    """Return steps that do the same, those that can be played together in one tape each."""
    return list(map(_of_batch, joined(bound)))


def _of_batch(step: Step | Tape | Forgetting) -> Step:
    """Return the step of a batch that plays a tape, drops values, or is one already."""
    if isinstance(step, Tape):
        return partial(_play, step)
    return _on_state(step) if isinstance(step, Forgetting) else step


def _play(tape: Tape, batch: _Batch) -> None:
    """Play a tape for a batch."""
    tape(batch.state, batch.places, batch.macs, batch.deciding)


def _on_state(step: Callable[[State], None]) -> Step:
    """Return the step of a batch that is one of its state alone."""
    return lambda batch: step(batch.state)


class _Linear:
    """A linear layer at all the widths that it reads.

    Attributes:
        bytes: of its weights.
        macs: per vector, by place of the width.
    """

    def __init__(self, ragged: Ragged, op: Operation) -> None:
        binder, outputs = ragged._binder, op.output.width.channels
        reads = ragged._keys.options(op.source).channels.tolist()
        widths = [{op.source.name: read, op.output.name: outputs} for read in reads]
        self._layers = [binder.layer(op, width) for width in widths]
        self._outputs = self._layers[0].weight.shape[0]
        inputs = [layer.weight.shape[1] for layer in self._layers]
        self.macs = np.array(inputs, dtype=np.int64) * self._outputs
        self._packed = [binder.packed(op, layer) for layer in self._layers]
        self.bytes = self._layers[-1].weight.nbytes
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

    def record(self, like: Tensor, source: int, target: int, read: int) -> Record:
        """Return the call for a tape that takes images one by one.

        Args:
            like: what it reads.
            source: slot.
            target: likewise.
            read: see `Record`.
        """
        addresses = self._room(like), self._rows.ctypes.data
        out = (self._outputs,)
        return Record(Kind.CONVOLVE, source, target, out, *addresses, read, held=self)

    def call(self, features: Tensor, place_B: Numbers) -> Tensor:
        """Return what the layer makes of each image's first inputs."""
        if place_B.min() == place_B.max():
            return self._alike(features, int(place_B[0]))
        if self.bytes <= SMALL and features.ndim == 2:
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
        features: that it reads, at full width.
        room: channels of the stream that it is added to; None: it is not added.

    Attributes:
        out: (H, W, C) of the result.
    """

    def __init__(
        self,
        ragged: Ragged,
        op: Operation,
        activation: Activation,
        features: Tensor,
        room: int | None,
    ) -> None:
        self._source = op.source
        self._target = op.output if op.conv_output is None else op.conv_output
        keys, binder = ragged._keys, ragged._binder
        self._keys = keys
        reads = keys.options(op.source).channels.tolist()
        writes = keys.options(self._target).channels.tolist()
        assert op.weight is not None
        assert op.geometry is not None
        self._alone = op.kind == "depthwise"
        pack = native.PackedDepthwise if self._alone else native.Packed
        self._packed = []
        for read in reads if op.conditional else reads[-1:]:
            full = {op.source.name: read, self._target.name: read if self._alone else writes[-1]}
            layer = binder.layer(op, full)
            self._packed.append(pack(layer.weight, layer.bias))
        rows = [
            self._packed[place if op.conditional else 0].row(read, write)
            for place, read in enumerate(reads)
            for write in ([read] if self._alone else writes)
        ]
        self._rows = np.array(rows, dtype=np.int64)
        self._writes = 1 if self._alone else len(writes)
        kernel = op.weight.shape[2:]
        frame = native.Frame.of(features, kernel, op.geometry.stride, op.geometry.padding)
        self._adds = room is not None
        self.out = (*frame.out, writes[-1] if room is None else room)
        limits = activation.limits
        self._call = frame.call(features.shape[1], self.out[-1], limits, add=self._adds)

    def record(self, source: int, target: int) -> Record:
        """Return the call for a tape, between two slots."""
        keys = self._keys
        return Record(
            Kind.DEPTHWISE if self._alone else Kind.CONVOLVE,
            source,
            target,
            None if self._adds else self.out,
            call=ctypes.addressof(self._call),
            widths=self._rows.ctypes.data,
            read=keys.index(self._source),
            write=-1 if self._alone else keys.index(self._target),
            writes=self._writes,
            held=self,
        )


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
