"""The table of modes: interpolated, and steady where times are alike."""

import pytest

from runtime_pruning.executor.mode_table import ModeTable


def test_between_what_was_measured_times_are_interpolated() -> None:
    rows = {(8, 0.5): {"a": 0.5, "b": 0.6}, (8, 1.0): {"a": 1.5, "b": 1.0}, (1, 1.0): {"a": 9.0}}
    table = ModeTable(1, rows)
    assert table.at(8, 0.75) == pytest.approx({"a": 1.0, "b": 0.8})
    assert table.at(6, 0.1) == pytest.approx({"a": 0.5, "b": 0.6})
    assert [table.choose(8, fraction) for fraction in (0.5, 0.55, 0.6, 1.0)] == ["a", "a", "b", "b"]
    assert table.choose(8, 0.5, steady="b") == "a"
    assert table.always(8) is None
    assert ModeTable(1, {key: {**row, "c": 0.1} for key, row in rows.items()}).always(8) == "c"
    assert table.choose(8, 0.57, steady="b") == "b"
    assert table.choose(2, 0.5, steady="b") == "a"
