"""The widths of values, and where the images of a batch stand among them."""

import ctypes

import pytest
import torch

from runtime_pruning.executor.batching.width_table import RaggedBatch, WidthOptions, WidthTable
from runtime_pruning.executor.native import library
from runtime_pruning.network.graph import Value, Width

# Two sites of 8 and 6 channels; the third value is as wide as the wider of them.
BOUNDS = [(0, 2, 4, 8), (0, 2, 3, 6)]
ONE, OTHER = Value("one", Width(8, frozenset({0}))), Value("other", Width(6, frozenset({1})))
BOTH, WHOLE = Value("both", Width(8, frozenset({0, 1}))), Value("whole", Width(5))


def test_the_widths_that_a_value_can_have() -> None:
    assert WidthOptions(BOUNDS, ONE).channels.tolist() == [2, 4, 8]
    assert WidthOptions(BOUNDS, BOTH).channels.tolist() == [2, 3, 4, 6, 8]
    assert WidthOptions(BOUNDS, WHOLE).channels.tolist() == [5]


def test_decisions_settle_the_widths_of_all_that_depend_on_them() -> None:
    if library.functions(torch.float32) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    table = WidthTable(BOUNDS, [ONE, OTHER, BOTH, WHOLE])
    assert [table.index(value) for value in (ONE, BOTH, OTHER, WHOLE)] == [0, 1, 2, -1]
    counts = (ctypes.c_int64 * 2 * 3)((1, 3), (3, 1), (2, 2))
    batch = RaggedBatch([], counts, len(table))
    table.settle(0, 1, batch)
    assert batch.places_KB[0].tolist() == [0, 2, 1]  # of 2, 4, 8
    table.settle(1, 2, batch)
    assert batch.places_KB[2].tolist() == [2, 0, 1]  # of 2, 3, 6
    assert batch.places_KB[1].tolist() == [3, 4, 2]  # 6, 8 and 4 of 2, 3, 4, 6, 8
