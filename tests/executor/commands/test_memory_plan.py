"""Values that are needed at once have places of their own; others share."""

import random

import pytest

from runtime_pruning.executor.commands.memory_plan import BufferValue, lay_out


def value(elements: int, first: int, last: int) -> BufferValue:
    return BufferValue(None, (elements,), first, last)


def test_a_chain_goes_back_and_forth_between_two_places() -> None:
    chain = [value(30, step, step + 1) for step in range(5)]
    assert lay_out(chain, 16) == 64
    assert [own.place for own in chain] == [0, 32, 0, 32, 0]


def test_what_is_kept_longer_keeps_its_place() -> None:
    stream, one, other = value(16, 0, 3), value(48, 1, 2), value(16, 3, 4)
    assert lay_out([stream, one, other], 16) == 64
    assert [own.place for own in (stream, one, other)] == [0, 16, 16]


def test_a_gap_that_is_large_enough_is_used() -> None:
    low, middle, high = value(16, 0, 0), value(16, 0, 9), value(16, 2, 3)
    wide = value(32, 4, 5)
    assert lay_out([low, middle, high, wide], 16) == 64
    assert [own.place for own in (low, middle, high, wide)] == [0, 16, 0, 32]


def test_of_nothing_there_is_nothing() -> None:
    assert lay_out([], 16) == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_two_values_meet(seed: int) -> None:
    draw = random.Random(seed)
    values = []
    for first in sorted(draw.randrange(12) for _ in range(15)):
        values.append(value(draw.randrange(1, 100), first, first + draw.randrange(5)))
    size = lay_out(values, 16)
    for i, own in enumerate(values):
        assert own.place % 16 == 0
        assert own.place + own.shape[0] <= size
        for other in values[:i]:
            apart = own.place >= other.place + other.shape[0]
            apart |= other.place >= own.place + own.shape[0]
            assert apart or other.last < own.first
