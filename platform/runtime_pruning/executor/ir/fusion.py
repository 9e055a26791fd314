"""Operations done by one call: normalisation of images, a convolution with the add behind it."""

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runtime_pruning.executor.ir.operations import NOTHING, Operation
from runtime_pruning.executor.ir.patterns import Scaling
from runtime_pruning.network.graph import Ref

_LESS: frozenset[Any] = frozenset({operator.sub, torch.sub})
_DIVIDED: frozenset[Any] = frozenset({operator.truediv, torch.div})


def fuse_scaling(operations: list[Operation], readers: dict[str, int]) -> list[Operation]:
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


def fuse_adds(stage: list[Operation], readers: dict[str, int]) -> tuple[Operation, ...]:
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
