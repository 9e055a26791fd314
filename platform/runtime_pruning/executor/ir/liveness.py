"""What is known of values: who reads them last, who owns their memory, which are nonnegative."""

import operator

from runtime_pruning.executor.ir.operations import Operation
from runtime_pruning.executor.ir.patterns import only_pools, zeros_around
from runtime_pruning.network.graph import Value

# Adds


def count_readers(stages: list[list[Operation]], logits: str) -> dict[str, int]:
    """Return how many operations read each value; the caller reads the logits."""
    readers = {logits: 1}
    for operation in (operation for stage in stages for operation in stage):
        for value in operation.reads:
            readers[value.name] = readers.get(value.name, 0) + 1
    return readers


# What is known of values


def site_sources(stages: tuple[tuple[Operation, ...], ...]) -> tuple[Value, ...]:
    """Return what each site reads, in order."""
    heads = [op for stage in stages for op in stage if op.site is not None]
    return tuple(op.source for op in sorted(heads, key=lambda op: op.site or 0))


def last_readers(stages: tuple[tuple[Operation, ...], ...], logits: str) -> dict[str, int]:
    """Return the index of the operation that reads each value last."""
    operations = [op for stage in stages for op in stage]
    last = {value.name: i for i, op in enumerate(operations) for value in op.reads}
    return {**last, logits: len(operations)}


def owned_values(stages: tuple[tuple[Operation, ...], ...]) -> list[str]:
    """Return the feature maps that an operation makes anew, and that nothing writes to later."""
    return [
        op.output.name
        for stage in stages
        for op in stage
        if (op.kind in ("convolution", "depthwise", "add") or pads_zeros(op))
        and only_pools(op.followers)
        and op.output.factor == 1
    ]


def nonnegative_values(stages: tuple[tuple[Operation, ...], ...]) -> set[str]:
    """Return the values that a fused activation leaves without an element below zero."""
    found: set[str] = set()
    for op in (op for stage in stages for op in stage):
        taken = op.step is not None and op.step.target is operator.getitem
        kept = (taken or pads_zeros(op)) and op.source.name in found
        if (kept or op.activation.nonnegative) and only_pools(op.followers):
            found.add(op.output.name)
    return found


def pads_zeros(op: Operation) -> bool:
    """Whether an operation puts zeros around a feature map."""
    return op.step is not None and bool(zeros_around(op.step))
