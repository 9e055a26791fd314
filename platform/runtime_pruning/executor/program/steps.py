"""Steps of a program: closures that read and write the slots of a state.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.nn import functional

from runtime_pruning.executor.commands.instruction import State, Step
from runtime_pruning.executor.ir.operations import (
    Call,
    Follower,
    LateNorm,
    Layer,
    Operation,
    TypedModule,
)
from runtime_pruning.executor.kernels.pooling import runnable
from runtime_pruning.network.batch_norm import batch_norm
from runtime_pruning.network.graph import Ref, Value
from runtime_pruning.network.sliced_calls import add_channels, convolve

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


# Steps


def conditional(op: Operation, layer: Layer, slots: Mapping[str, int]) -> Step:
    """Return a layer whose images read unlike widths, each normalised as its own asks."""
    source, to, sites = slots[op.source.name], slots[op.output.name], op.source.width.sites
    activation, norms, followers = op.activation, op.norms, runnable(op.followers)

    def run(state: State) -> None:
        read = state[-1][sites].channels
        if op.kind == "linear":
            features = functional.linear(state[source], layer.weight, layer.bias)
        else:
            features = convolve(op.module, state[source], layer.weight, layer.bias)
        for norm in norms:
            features = batch_norm(norm, features, None, read)
        features = activation.apply_(features)
        for follower in followers:
            if isinstance(follower, LateNorm):
                features = follower(features, read)
            else:
                features = follower(features)
        state[to] = features

    return run


def calling(call: Call, op: Operation, slots: Mapping[str, int]) -> Step:
    """Return a call on the first input, and what follows it."""
    source, to = slots[op.source.name], slots[op.output.name]
    followers = runnable(op.followers)
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
    calls = runnable(followers)

    def run(state: State) -> None:
        for call in calls:
            state[slot] = call(state[slot])

    return run


def added(call: Call, op: Operation, slots: Mapping[str, int]) -> Step:
    """Return a convolution that is wider than the stream that it is added to."""
    assert op.onto is not None
    source, onto, to = slots[op.source.name], slots[op.onto.name], slots[op.output.name]
    activation, followers = op.activation, runnable(op.followers)

    def run(state: State) -> None:
        stream = call(state[source])
        narrow = state[onto]
        stream.narrow(1, 0, narrow.shape[1]).add_(narrow)
        activation.apply_(stream)
        for follower in followers:
            stream = follower(stream)
        state[to] = stream

    return run


def adding(op: Operation, slots: Mapping[str, int]) -> Step:
    """Return an add with what follows it."""
    one, other = (slots[value.name] for value in (op.inputs * 2)[:2])
    to, activation, followers = slots[op.output.name], op.activation, runnable(op.followers)

    def run(state: State) -> None:
        total = activation.apply_(add_channels(state[one], state[other]))
        for follower in followers:
            total = follower(total)
        state[to] = total

    return run


def odd(op: Operation, layer: Layer) -> Call:
    """Return a convolution whose padding the fused calls do not know."""
    conv, activation = op.module, op.activation
    return lambda features: activation.apply_(convolve(conv, features, layer.weight, layer.bias))


def opaque(op: Operation, slots: Mapping[str, int]) -> Step:
    """Return an operation of which nothing is known, as torch.fx saw it."""
    step, found, to = op.step, op.module, slots[op.output.name]
    assert step is not None
    if step.op == "attribute":

        def attribute(state: State) -> None:
            state[to] = found

        return attribute
    fetch = _fetching(step.args, step.kwargs, slots)
    typed = TypedModule(found) if step.op == "module" else None
    method = step.op == "method"

    def run(state: State) -> None:
        args, kwargs = of_one_type(*fetch(state))
        call = getattr(args[0], step.target) if method else step.target
        if typed is not None:
            call = typed.of(_floating_type((args, kwargs)))
        state[to] = call(*args[1:] if method else args, **kwargs)

    return run


def of_one_type(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return arguments whose floating-point tensors have one type, the widest among them.

    Features may be bfloat16 where the backbone's own parameters and constants are float32.
    """
    types = _floating_types((args, kwargs))
    if len(types) < 2:
        return args, kwargs
    widest = reduce(torch.promote_types, types)
    found: tuple[Sequence[Any], Mapping[str, Any]] = map_aggregate(
        (tuple(args), dict(kwargs)),
        lambda item: item.to(widest) if _is_floating(item) else item,
    )
    return found


def _floating_type(arguments: Any) -> torch.dtype:
    """Return the one floating-point type among some arguments, float32 where there is none."""
    return next(iter(_floating_types(arguments)), torch.float32)


def _floating_types(arguments: Any) -> set[torch.dtype]:
    """Return the floating-point types of tensors among some arguments."""
    types = set[torch.dtype]()

    def note(item: Any) -> Any:
        if _is_floating(item):
            types.add(item.dtype)
        return item

    map_aggregate(arguments, note)
    return types


def _is_floating(item: Any) -> TypeGuard[Tensor]:
    return isinstance(item, Tensor) and item.is_floating_point()


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


def casting(slot: int, dtype: torch.dtype) -> Step:
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
