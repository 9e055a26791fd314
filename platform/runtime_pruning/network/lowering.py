"""From units to operations for inference: batch norm folded, activations and adds fused.

An operation is a unit without the parts that only training needs. A convolution takes the
batch norm after it into its weights, the activation after that into its call, and where its result
is only added to a stream, the add and the activation behind it as well.

Dimensions: B images, C channels, H W pixels, L sites.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from runtime_pruning.network.batch_norm import (
    NORMS,
    Norm,
    Read,
    batch_norm,
    is_conditioned,
    statistics,
)
from runtime_pruning.network.graph import Kind, Ref, Step, Unit, Value
from runtime_pruning.network.kernels import NOTHING, Activation, Geometry
from runtime_pruning.network.moves import GlobalPool, MaxPool, Scaling, only_pools, zeros_around
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.rules import rule_for

Follower: TypeAlias = Callable[[Tensor], Tensor]

_RELUS: frozenset[Any] = frozenset({functional.relu, torch.relu, torch.relu_, "relu", "relu_"})
_LESS: frozenset[Any] = frozenset({operator.sub, torch.sub})
_DIVIDED: frozenset[Any] = frozenset({operator.truediv, torch.div})
_NOTHINGS = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class LateNorm:
    """A batch norm that cannot be folded, since something stands between it and the layer."""

    norm: Norm

    def __call__(self, features: Tensor, read: Read | None = None) -> Tensor:
        """Return the features, normalised by the statistics of the width that the layer read."""
        return batch_norm(self.norm, features, None, read)


@dataclass(frozen=True)
class Operation:
    """One call, or a few, at inference.

    Attributes:
        kind: of the unit.
        inputs: what it reads.
        output: what it writes.
        site: index of the site that it is, if it is one.
        weight: at full width.
        bias: likewise.
        norms: batch norms right after it, to be folded into weight and bias.
        geometry: of a convolution; None where it must be called as a module (odd padding).
        groups: of a convolution at full width.
        head_factor: elements per channel, along dimension 1, in a layer's own result.
        module: the layer, for what is not held here.
        activation: done by the call.
        followers: done after it.
        step: what an opaque operation does.
        onto: the value that the convolution's result is added to.
        conv_output: with ``onto``: the convolution's own result, before the add.
        scaling: of an opaque operation that normalises images.
    """

    kind: Kind
    inputs: tuple[Value, ...]
    output: Value
    site: int | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    norms: tuple[Norm, ...] = ()
    geometry: Geometry | None = None
    groups: int = 1
    head_factor: int = 1
    module: Any = None
    activation: Activation = NOTHING
    followers: tuple[Follower, ...] = ()
    step: Step | None = None
    onto: Value | None = None
    conv_output: Value | None = None
    scaling: Scaling | None = None

    @property
    def conditional(self) -> bool:
        """Whether a batch norm behind it has statistics per width that it reads."""
        late = [part.norm for part in self.followers if isinstance(part, LateNorm)]
        return any(is_conditioned(norm) for norm in (*self.norms, *late))

    @property
    def source(self) -> Value:
        """The value that is read first."""
        return self.inputs[0]

    @property
    def reads(self) -> tuple[Value, ...]:
        """All values that are read."""
        return self.inputs if self.onto is None else (*self.inputs, self.onto)

    @property
    def results(self) -> tuple[Value, ...]:
        """The value that is written, and what it consists of where an add was fused."""
        return (self.output,) if self.conv_output is None else (self.output, self.conv_output)

    @property
    def widths(self) -> tuple[Value, ...]:
        """All values whose width matters to the call."""
        return (*self.reads, *self.results)


@dataclass
class Lowered:
    """A network's operations, stage by stage.

    Attributes:
        stages: before the first decision, then after each.
        sources: the value that each site reads.
        images: name of the value that enters.
        logits: name of the value that leaves.
        last_reader: index of the operation, over all stages, that reads a value last.
        owned: values in storage of their own, that may be overwritten once nobody reads them.
        nonnegative: values without an element below zero.
    """

    stages: tuple[tuple[Operation, ...], ...]
    sources: tuple[Value, ...]
    images: str
    logits: str
    last_reader: dict[str, int] = field(default_factory=dict)
    owned: frozenset[str] = frozenset()
    nonnegative: frozenset[str] = frozenset()


def lower(network: PrunableNetwork, *, fused: bool) -> Lowered:
    """Return the operations of a network in evaluation mode; its weights are read, not changed.

    Args:
        network: without a second look.
        fused: whether what follows a layer may use our own calls.
    """
    alias: dict[str, str] = {}
    stages = []
    for units in network.graph.stages:
        operations = [_operation(network, unit, alias, fused=fused) for unit in units]
        stages.append([operation for operation in operations if operation is not None])
    logits = alias.get(network.graph.logits, network.graph.logits)
    readers = _count_readers(stages, logits)
    stages = [_fuse_scaling(stage, readers) for stage in stages]
    joined = tuple(_fuse_adds(stage, readers) for stage in stages)
    lowered = Lowered(joined, _site_sources(joined), network.graph.images, logits)
    lowered.last_reader = _last_readers(joined, logits)
    lowered.owned = frozenset(_owned(joined))
    lowered.nonnegative = frozenset(_nonnegative(joined))
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
        step = replace(unit.head, args=renamed[0], kwargs=renamed[1])
        found = network.module(step.target) if step.op in ("module", "attribute") else None
        return replace(operation, step=step, module=found)
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


def _does_nothing(network: PrunableNetwork, step: Step) -> bool:
    """Whether a step returns its input at inference."""
    if step.op == "module":
        return isinstance(network.module(step.target), _NOTHINGS)
    return step.target in (functional.dropout, functional.dropout2d, "contiguous")


def _with_weights(
    network: PrunableNetwork, unit: Unit, operation: Operation, steps: list[Step]
) -> tuple[Operation, list[Step]]:
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


def _activation(network: PrunableNetwork, step: Step) -> Activation | None:
    """Return a step as an activation that a call can do itself, if it is one."""
    if step.op != "module":
        return Activation("relu") if step.target in _RELUS else None
    module = network.module(step.target)
    if type(module) is nn.ReLU:
        return Activation("relu")
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return Activation("hardtanh", (float(module.min_val), float(module.max_val)))
    return None


def _pools(network: PrunableNetwork, steps: list[Step]) -> tuple[list[Follower], list[Step]]:
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


def _follower(network: PrunableNetwork, step: Step) -> Follower:
    """Return a per-channel step as a function of the features."""
    if step.op == "module":
        module = network.module(step.target)
        if isinstance(module, NORMS):
            return LateNorm(module)
        rule = rule_for(module)
        assert rule is not None
        return lambda features: rule(module, features, None)
    call = step.target if step.op == "function" else getattr(Tensor, step.target)
    args, kwargs = step.args, dict(step.kwargs)
    return lambda features: call(features, *args, **kwargs)


def _fuse_scaling(operations: list[Operation], readers: dict[str, int]) -> list[Operation]:
    """Return a stage where less-a-constant, and divided-by-one right after, are one operation."""
    constants = {
        op.output.name: op.module
        for op in operations
        if op.step is not None and op.step.op == "attribute" and isinstance(op.module, Tensor)
    }
    less = {op.output.name: op for op in operations if _with_constant(op, _LESS, constants)}
    fused, replaced = list(operations), set[str]()
    for index, op in enumerate(operations):
        before = less.get(op.source.name) if op.inputs else None
        if before is None or not _with_constant(op, _DIVIDED, constants):
            continue
        if readers[before.output.name] > 1:
            continue
        names = before.inputs[1].name, op.inputs[1].name
        mean, std = (constants[name].detach() for name in names)
        scaling = Scaling(mean, std)
        fused[index] = replace(op, inputs=before.inputs[:1], step=None, scaling=scaling)
        replaced |= {before.output.name, *[name for name in names if readers[name] == 1]}
    return [op for op in fused if op.output.name not in replaced]


def _with_constant(op: Operation, targets: frozenset[Any], constants: Mapping[str, Tensor]) -> bool:
    """Whether an operation is a function of a value and of a constant per channel of an image."""
    step = op.step
    if step is None or step.op != "function" or step.target not in targets or step.kwargs:
        return False
    names = [value.name for value in op.inputs]
    if list(step.args) != list(map(Ref, names)) or len(names) != 2 or names[1] not in constants:
        return False
    constant = constants[names[1]]
    return constant.ndim == 3 and constant.numel() == constant.shape[0]


# Adds


def _count_readers(stages: list[list[Operation]], logits: str) -> dict[str, int]:
    """Return how many operations read each value; the caller reads the logits."""
    readers = {logits: 1}
    for operation in (operation for stage in stages for operation in stage):
        for value in operation.reads:
            readers[value.name] = readers.get(value.name, 0) + 1
    return readers


def _fuse_adds(stage: list[Operation], readers: dict[str, int]) -> tuple[Operation, ...]:
    """Return a stage whose convolutions do the adds that follow them."""
    fused = list(stage)
    for add in stage:
        if add.kind != "add":
            continue
        conv = _addend(fused, add, readers)
        if conv is None:
            continue
        (onto,) = (value for value in add.inputs if value.name != conv.output.name)
        fused.remove(conv)
        fused[fused.index(add)] = replace(
            conv,
            output=add.output,
            activation=add.activation,
            followers=add.followers,
            onto=onto,
            conv_output=conv.output,
        )
    return tuple(fused)


def separate(operation: Operation) -> tuple[Operation, ...]:
    """Return an operation, or the convolution and the add that it was fused from."""
    if operation.onto is None or operation.conv_output is None:
        return (operation,)
    alone = replace(
        operation,
        output=operation.conv_output,
        onto=None,
        conv_output=None,
        activation=NOTHING,
        followers=(),
    )
    parts = (operation.conv_output, operation.onto)
    add = Operation(
        *("add", parts, operation.output),
        activation=operation.activation,
        followers=operation.followers,
    )
    return alone, add


def _addend(stage: list[Operation], add: Operation, readers: dict[str, int]) -> Operation | None:
    """Return the convolution of this stage whose result only this add reads; a site first."""
    names = {value.name for value in add.inputs}
    found = [
        operation
        for operation in stage
        if operation.kind in ("convolution", "depthwise")
        and operation.output.name in names
        and operation.geometry is not None
        and operation.onto is None
        and not operation.followers
        and operation.activation == NOTHING
        and readers[operation.output.name] == 1
    ]
    found.sort(key=lambda operation: operation.site is None)
    return found[0] if found and len(names) == 2 else None


# What is known of values


def _site_sources(stages: tuple[tuple[Operation, ...], ...]) -> tuple[Value, ...]:
    """Return what each site reads, in order."""
    heads = [op for stage in stages for op in stage if op.site is not None]
    return tuple(op.source for op in sorted(heads, key=lambda op: op.site or 0))


def _last_readers(stages: tuple[tuple[Operation, ...], ...], logits: str) -> dict[str, int]:
    """Return the index of the operation that reads each value last."""
    operations = [op for stage in stages for op in stage]
    last = {value.name: i for i, op in enumerate(operations) for value in op.reads}
    return {**last, logits: len(operations)}


def _owned(stages: tuple[tuple[Operation, ...], ...]) -> list[str]:
    """Return the feature maps that an operation makes anew, and that nothing writes to later."""
    return [
        op.output.name
        for stage in stages
        for op in stage
        if (op.kind in ("convolution", "depthwise", "add") or _pads_zeros(op))
        and only_pools(op.followers)
        and op.output.factor == 1
    ]


def _nonnegative(stages: tuple[tuple[Operation, ...], ...]) -> set[str]:
    """Return the values that a fused activation leaves without an element below zero."""
    found: set[str] = set()
    for op in (op for stage in stages for op in stage):
        taken = op.step is not None and op.step.target is operator.getitem
        kept = (taken or _pads_zeros(op)) and op.source.name in found
        if (kept or op.activation.nonnegative) and only_pools(op.followers):
            found.add(op.output.name)
    return found


def _pads_zeros(op: Operation) -> bool:
    """Whether an operation puts zeros around a feature map."""
    return op.step is not None and bool(zeros_around(op.step))
