"""From units to operations for inference: batch norm folded, activations and adds fused.

An operation is a unit without the parts that only training needs. A convolution takes the
batch norm after it into its weights, the activation after that into its call, and where its result
is only added to a stream, the add and the activation behind it as well.

Dimensions: B images, C channels, H W pixels, L sites.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from runtime_pruning.executor.ir.fusion import fuse_adds, fuse_scaling
from runtime_pruning.executor.ir.liveness import (
    count_readers,
    last_readers,
    nonnegative_values,
    owned_values,
    site_sources,
)
from runtime_pruning.executor.ir.operations import (
    Activation,
    Follower,
    Geometry,
    LateNorm,
    Lowered,
    Operation,
    TypedModule,
)
from runtime_pruning.executor.ir.patterns import GlobalPool, MaxPool
from runtime_pruning.network.batch_norm import NORMS, Norm, statistics
from runtime_pruning.network.graph import FxCall, Ref, Unit
from runtime_pruning.network.per_channel import out_of_place, rule_for
from runtime_pruning.network.prunable import PrunableNetwork

_RELUS: frozenset[Any] = frozenset({functional.relu, torch.relu, torch.relu_, "relu", "relu_"})


_NOTHINGS = (nn.Identity, nn.Dropout, nn.Dropout2d)


def lower(network: PrunableNetwork, *, fused: bool) -> Lowered:
    """Return the operations of a network in evaluation mode; its weights are read, not changed.

    Args:
        network: in evaluation mode.
        fused: whether what follows a layer may use our own calls.
    """
    alias: dict[str, str] = {}
    stages = []
    for units in network.graph.stages:
        operations = [_operation(network, unit, alias, fused=fused) for unit in units]
        stages.append([operation for operation in operations if operation is not None])
    logits = alias.get(network.graph.logits, network.graph.logits)
    readers = count_readers(stages, logits)
    stages = [fuse_scaling(stage, readers) for stage in stages]
    joined = tuple(fuse_adds(stage, readers) for stage in stages)
    lowered = Lowered(joined, site_sources(joined), network.graph.images, logits)
    lowered.last_reader = last_readers(joined, logits)
    lowered.owned = frozenset(owned_values(joined))
    lowered.nonnegative = frozenset(nonnegative_values(joined))
    return lowered


# Units, one by one


def _operation(
    network: PrunableNetwork, unit: Unit, alias: dict[str, str], *, fused: bool
) -> Operation | None:
    """Return a unit as an operation; None where it does nothing, and its output is its input."""
    inputs = tuple(replace(v, name=alias.get(v.name, v.name)) for v in unit.inputs)
    steps = [step for step in unit.followers if not _does_nothing(network, step)]
    if unit.kind == "follow" and not steps:
        alias[unit.output.name] = inputs[0].name
        return None
    operation = Operation(unit.kind, inputs, unit.output, unit.site, head_factor=unit.head_factor)
    if unit.kind == "opaque":
        assert unit.head is not None
        renamed = map_aggregate(
            (unit.head.args, dict(unit.head.kwargs)),
            lambda item: Ref(alias.get(item.name, item.name)) if isinstance(item, Ref) else item,
        )
        step = replace(unit.head, args=renamed[0], kwargs=renamed[1]).at_inference()
        found = network.module(step.target) if step.op in ("module", "attribute") else None
        return replace(operation, step=step, module=found, fixed_macs=unit.fixed_macs)
    if unit.kind in ("convolution", "depthwise", "linear"):
        operation, steps = _with_weights(network, unit, operation, steps)
    if unit.kind != "follow" and steps:
        activation = _activation(network, steps[0])
        if activation is not None and unit.kind != "linear":
            operation, steps = replace(operation, activation=activation), steps[1:]
    followers: list[Follower] = []
    if fused:
        followers, steps = _pools(network, steps)
    followers += [_follower(network, step) for step in steps]
    return replace(operation, followers=tuple(followers))


def _does_nothing(network: PrunableNetwork, step: FxCall) -> bool:
    """Whether a step returns its input at inference."""
    if step.op == "module":
        return isinstance(network.module(step.target), _NOTHINGS)
    return step.target in (functional.dropout, functional.dropout2d, "contiguous")


def _with_weights(
    network: PrunableNetwork, unit: Unit, operation: Operation, steps: list[FxCall]
) -> tuple[Operation, list[FxCall]]:
    """Give an operation its weights, with the batch norms that come first folded in."""
    module = network.head_module(unit)
    norms: list[Norm] = []
    while steps and steps[0].op == "module":
        norm = network.module(steps[0].target)
        if not isinstance(norm, NORMS) or norm.running_mean is None:
            break
        norms.append(norm)
        steps = steps[1:]
    bias = None if module.bias is None else module.bias.detach()
    operation = replace(
        operation,
        weight=module.weight.detach(),
        bias=bias,
        norms=tuple(norms),
        module=module,
    )
    if isinstance(module, nn.Conv2d):
        geometry = _geometry(module)
        operation = replace(operation, geometry=geometry, groups=module.groups)
    return operation, steps


def folded(
    weight: Tensor, bias: Tensor | None, norm: Norm, read: int | None
) -> tuple[Tensor, Tensor]:
    """Return weights and bias that do a batch norm's work, computed in float64.

    Args:
        weight: of the first outputs.
        bias: of the same.
        norm: at inference, with running statistics.
        read: channels that the layer reads, where that matters.
    """
    rows = weight.shape[0]
    own = statistics(norm, read)
    assert own.mean_C is not None
    assert own.var_C is not None
    scale_C = torch.rsqrt(own.var_C[:rows].double() + norm.eps)
    if norm.affine:
        scale_C = scale_C * norm.weight.detach()[:rows].double()
    shift_C = -own.mean_C[:rows].double()
    shift_C = (shift_C if bias is None else bias.double() + shift_C) * scale_C
    if norm.affine:
        shift_C = shift_C + norm.bias.detach()[:rows].double()
    whole = (-1, *[1] * (weight.ndim - 1))
    return (weight.double() * scale_C.view(whole)).to(weight), shift_C.to(weight)


def _geometry(conv: nn.Conv2d) -> Geometry | None:
    """Return how a convolution moves, or None where its padding is not plain zeros."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return None
    return Geometry(tuple(conv.stride), tuple(conv.padding), tuple(conv.dilation))


def _activation(network: PrunableNetwork, step: FxCall) -> Activation | None:
    """Return a step as an activation that a call can do itself, if it is one."""
    if step.op != "module":
        return Activation("relu") if step.target in _RELUS else None
    module = network.module(step.target)
    if type(module) is nn.ReLU:
        return Activation("relu")
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return Activation("hardtanh", (float(module.min_val), float(module.max_val)))
    return None


def _pools(network: PrunableNetwork, steps: list[FxCall]) -> tuple[list[Follower], list[FxCall]]:
    """Return the poolings that our own calls know, first among some steps, and the steps left."""
    found: list[Follower] = []
    while steps:
        if GlobalPool.knows(steps, network.module):
            return [*found, GlobalPool()], steps[2:]
        module = network.module(steps[0].target) if steps[0].op == "module" else None
        if not isinstance(module, nn.MaxPool2d) or not MaxPool.knows(module):
            break
        found.append(MaxPool(module))
        steps = steps[1:]
    return found, steps


def _follower(network: PrunableNetwork, step: FxCall) -> Follower:
    """Return a per-channel step as a function of the features."""
    if step.op == "module":
        module = network.module(step.target)
        if isinstance(module, NORMS):
            return LateNorm(module)
        rule = rule_for(module)
        assert rule is not None
        typed = TypedModule(out_of_place(module))
        return lambda features: rule(typed.of(features.dtype), features, None)
    step = step.at_inference()
    call = step.target if step.op == "function" else getattr(Tensor, step.target)
    args, kwargs = step.args, dict(step.kwargs)
    return lambda features: call(features, *args, **kwargs)
