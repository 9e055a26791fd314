"""What is known of values, on a network that is read by hand."""

from runtime_pruning.executor.ir.lowering import lower
from small_networks import residual


def test_last_readers_owners_and_signs() -> None:
    lowered = lower(residual(), fused=True)
    first, inside, onto, linear = (op for stage in lowered.stages for op in stage)
    last = lowered.last_reader
    assert last[lowered.images] == 0
    assert last[first.output.name] == 2  # the add, after the branch has read it
    assert last[inside.output.name] == 2
    assert last[linear.output.name] == 4  # the caller
    # The mean over pixels follows the add's pool: what it leaves is no feature map of its own.
    assert lowered.owned == {first.output.name, inside.output.name}
    assert lowered.nonnegative == {first.output.name, inside.output.name}
    assert onto.output.name not in lowered.nonnegative
