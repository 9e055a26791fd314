"""Operations bound to widths: closures that read and write the slots of a state.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.nn import functional

from runtime_pruning.network import native
from runtime_pruning.network.batch_norm import batch_norm
from runtime_pruning.network.execution import add_channels, convolve
from runtime_pruning.network.graph import Ref, Value
from runtime_pruning.network.kernels import (
    NOTHING,
    Call,
    Layer,
    Ours,
    OursLinear,
    convolution,
    convolution_onto,
    linear,
    linear_runs,
    ours_run,
    own_calls,
)
from runtime_pruning.network.lowering import Follower, LateNorm, Lowered, Operation, folded
from runtime_pruning.network.moves import copied, of_step, pooling_first
from runtime_pruning.network.tape import Kind, Record, Recorded, State, Step

Masks: TypeAlias = dict[frozenset[int], "Mask"]  # by the sites that decide
Widths: TypeAlias = Mapping[str, int]  # channels, by the name of a value


class Mask(NamedTuple):
    """Which channels of a value are present, image by image.

    Attributes:
        channels: of all images, or per image (B, int64).
        present_BC: bool; None where nothing is absent.
    """

    channels: int | Tensor
    present_BC: Tensor | None


class Bound(NamedTuple):
    """Steps that have run once, and the multiply-accumulates that they made per image."""

    steps: list[Step]
    macs: int


def reads_planes(lowered: Lowered, dtype: torch.dtype, channels: int) -> bool:
    """Whether all that reads images is a call for a tape, which takes them plane by plane too.

    Args:
        lowered: the operations of a network, to be bound to fused calls.
        dtype: of its weights and features.
        channels: of images.
    """
    operations = [op for stage in lowered.stages for op in stage]
    readers = [op for op in operations if lowered.images in {value.name for value in op.reads}]
    if native.functions(dtype) is None or len(readers) != 1:
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
        self._packed: dict[str, native.Packed] = {}

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
                steps.append(_casting(source, self._dtype))
                steps[-1](state)
            masked = state[-1] is not None
            layer = self.layer(op, widths, masked=masked)
            macs = self._count(op, layer, state[source])
            if masked and op.conditional:
                own: list[Step] = [_conditional(op, layer, self._slots)]
            else:
                op = _at_width(op, _read(op, widths))
                own = self._layer_steps(op, layer, index, widths, state)
        else:
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
            return _calling(op.scaling, op, self._slots)
        if op.kind == "opaque":
            return _opaque(op, self._slots)
        if op.kind == "add":
            return _adding(op, self._slots)
        return _calling(lambda features: features, op, self._slots)

    def _moved(self, op: Operation, state: State) -> Recorded | None:
        """Return an operation as a call for a tape, if it is one that our own calls know."""
        if op.followers or not op.inputs or op.kind != "opaque":
            return None
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        like = state[source]
        if not isinstance(like, Tensor) or like.ndim != 4 or own_calls(like) is None:
            return None
        record = None
        if op.scaling is not None:
            record = op.scaling.record(like, source, to)
        elif op.step is not None and like.dtype == self._dtype:
            record = of_step(op.step, like, source, to)
        return None if record is None else Recorded((record,), self._dtype)

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

    def packed(self, op: Operation, layer: Layer) -> native.Packed:
        """Return the weights of a linear layer for our own calls.

        All widths share what is packed, unless batch norm makes each another.
        """
        if op.norms:
            return native.packed_linear(layer.weight, layer.bias)
        name = op.output.name
        if name not in self._packed:
            assert op.weight is not None
            self._packed[name] = native.packed_linear(op.weight.to(self._dtype), op.bias)
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
            ours = self._fused and linear_runs(like)
            packed = self.packed(op, layer) if ours else None
            return self._called(linear(layer, packed, like), op)
        if layer.geometry is None:
            return self._called(_odd(op, layer), op)
        if op.onto is None:
            return self._called(convolution(layer, op.activation, like, fused=self._fused), op)
        return self._residual(op, layer, index, widths, state)

    def _called(self, call: Call, op: Operation) -> list[Step]:
        """Return a call on the first input, and what follows it."""
        if not isinstance(call, Ours | OursLinear):
            return [_calling(call, op, self._slots)]
        record = call.record(self._slots[op.source.name], self._slots[op.output.name])
        return self._recorded([record], record.out or (), op.followers)

    def _recorded(
        self, records: list[Record], size: tuple[int, ...], followers: Sequence[Follower]
    ) -> list[Step]:
        """Return calls for a tape whose last makes an image of a size, and what follows them."""
        pools, rest = pooling_first(followers) if len(size) == 3 else ([], list(followers))
        for pool in pools:
            records = [*records, pool.record(size, records[-1].target, size[2:])]
            size = records[-1].out or ()
        steps: list[Step] = [Recorded(tuple(records), self._dtype)]
        if rest:
            steps.append(following(records[-1].target, rest))
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
        if mine > theirs and self._fused and ours_run(layer, like):
            channels, high, wide = state[onto].shape[1:]
            size = (high, wide, mine)
            first = copied((high, wide, channels), mine, onto, to)
            call = Ours(layer, op.activation, like, mine)
            return self._recorded([first, call.record(source, to)], size, op.followers)
        if mine > theirs:
            alone = convolution(layer, NOTHING, like, fused=self._fused)
            return [_added(alone, op, self._slots)]
        name = op.onto.name
        dies = self._lowered.last_reader[name] == index and name != op.source.name
        copies = not (dies and name in self._lowered.owned)
        whole = mine == theirs
        positive = op.activation.attr == "relu" and name in self._lowered.nonnegative
        # On a view, oneDNN's call falls back to an add with ReLU that lacks bfloat16.
        able = whole or (positive and (self._dtype == torch.float32 or ours_run(layer, like)))
        inside = op.activation if able else NOTHING
        call_onto = convolution_onto(layer, inside, like, room=theirs, fused=self._fused)
        rows, after, followers = layer.weight.shape[0], op.activation, op.followers
        later = inside is NOTHING and after != NOTHING
        if isinstance(call_onto, Ours) and not later:
            channels, high, wide = state[onto].shape[1:]
            size = (high, wide, channels)
            first = copied(size, channels, onto, to) if copies else Record(Kind.MOVE, onto, to)
            return self._recorded([first, call_onto.record(source, to)], size, followers)

        def run(state: State) -> None:
            stream = state[onto].clone() if copies else state[onto]
            first = stream if whole else stream.narrow(1, 0, rows)
            call_onto(state[source], first)
            if later:
                after.apply_(first if positive else stream)
            for follower in followers:
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


# Steps


def _conditional(op: Operation, layer: Layer, slots: Mapping[str, int]) -> Step:
    """Return a layer whose images read unlike widths, each normalised as its own asks."""
    source, to, sites = slots[op.source.name], slots[op.output.name], op.source.width.sites
    activation, norms = op.activation, op.norms

    def run(state: State) -> None:
        read = state[-1][sites].channels
        if op.kind == "linear":
            features = functional.linear(state[source], layer.weight, layer.bias)
        else:
            features = convolve(op.module, state[source], layer.weight, layer.bias)
        for norm in norms:
            features = batch_norm(norm, features, None, read)
        features = activation.apply_(features)
        for follower in op.followers:
            if isinstance(follower, LateNorm):
                features = follower(features, read)
            else:
                features = follower(features)
        state[to] = features

    return run


def _calling(call: Call, op: Operation, slots: Mapping[str, int]) -> Step:
    """Return a call on the first input, and what follows it."""
    source, to, followers = slots[op.source.name], slots[op.output.name], op.followers
    if not followers:

        def single(state: State) -> None:
            state[to] = call(state[source])

        return single

    def run(state: State) -> None:
        features = call(state[source])
        for follower in followers:
            features = follower(features)
        state[to] = features

    return run


def following(slot: int, followers: Sequence[Follower]) -> Step:
    """Return what is done to a value in place of it."""

    def run(state: State) -> None:
        for follower in followers:
            state[slot] = follower(state[slot])

    return run


def _added(call: Call, op: Operation, slots: Mapping[str, int]) -> Step:
    """Return a convolution that is wider than the stream that it is added to."""
    assert op.onto is not None
    source, onto, to = slots[op.source.name], slots[op.onto.name], slots[op.output.name]
    activation, followers = op.activation, op.followers

    def run(state: State) -> None:
        stream = call(state[source])
        narrow = state[onto]
        stream.narrow(1, 0, narrow.shape[1]).add_(narrow)
        activation.apply_(stream)
        for follower in followers:
            stream = follower(stream)
        state[to] = stream

    return run


def _adding(op: Operation, slots: Mapping[str, int]) -> Step:
    """Return an add with what follows it."""
    one, other = (slots[value.name] for value in (op.inputs * 2)[:2])
    to, activation, followers = slots[op.output.name], op.activation, op.followers

    def run(state: State) -> None:
        total = activation.apply_(add_channels(state[one], state[other]))
        for follower in followers:
            total = follower(total)
        state[to] = total

    return run


def _odd(op: Operation, layer: Layer) -> Call:
    """Return a convolution whose padding the fused calls do not know."""
    conv, activation = op.module, op.activation
    return lambda features: activation.apply_(convolve(conv, features, layer.weight, layer.bias))


def _opaque(op: Operation, slots: Mapping[str, int]) -> Step:
    """Return an operation of which nothing is known, as torch.fx saw it."""
    step, found, to = op.step, op.module, slots[op.output.name]
    assert step is not None
    if step.op == "attribute":

        def attribute(state: State) -> None:
            state[to] = found

        return attribute
    if step.op == "module" and len(step.args) == 1 and not step.kwargs:
        (only,) = step.args
        if isinstance(only, Ref):
            return _calling(found, op, slots)
    target: Any = found if step.op == "module" else step.target
    method = step.op == "method"
    fetch = _fetching(step.args, step.kwargs, slots)

    def run(state: State) -> None:
        args, kwargs = fetch(state)
        call = getattr(args[0], target) if method else target
        state[to] = call(*args[1:] if method else args, **kwargs)

    return run


def _fetching(
    args: Sequence[Any], kwargs: Mapping[str, Any], slots: Mapping[str, int]
) -> Callable[[State], tuple[Sequence[Any], Mapping[str, Any]]]:
    """Return what finds the arguments of a call in a state."""
    nested = any(isinstance(item, Sequence | Mapping | slice) for item in args)
    if kwargs or nested:
        return lambda state: map_aggregate(
            (args, dict(kwargs)),
            lambda item: state[slots[item.name]] if isinstance(item, Ref) else item,
        )
    places = [(slots[item.name] if isinstance(item, Ref) else None, item) for item in args]

    def flat(state: State) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return [item if slot is None else state[slot] for slot, item in places], {}

    return flat


def _casting(slot: int, dtype: torch.dtype) -> Step:
    """Return a step that changes a value's type."""

    def run(state: State) -> None:
        state[slot] = state[slot].to(dtype)

    return run


def masking(slot: int, value: Value) -> Step:
    """Return a step that sets a value's absent channels to zero, as the state's masks say."""
    sites, factor = value.width.sites, value.factor

    def run(state: State) -> None:
        features = state[slot]
        present_BC = state[-1][sites].present_BC
        if present_BC is None:
            return
        present_BC = present_BC.to(features.dtype)
        if factor > 1:
            present_BC = present_BC.repeat_interleave(factor, dim=1)
        state[slot] = features * present_BC.view(*present_BC.shape, *[1] * (features.ndim - 2))

    return run
