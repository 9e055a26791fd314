"""A process of a sweep is killed, and the sweep started again: no point is lost, none doubled.

One kill here; `tests/benchmarks/kill_test.py` kills one after the other.
"""

from pathlib import Path

import pytest

from killing import foretold, killed, stage

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_trial_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    one = ("trials=1", "controls=[dense]")
    with stage(tmp_path / "results", tmp_path / "log.txt", changes=one) as made:
        found = killed(made, "trial", after_s=1.0, expected=foretold(one))
    assert found.killed
    assert (found.lost, found.doubled) == (0, 0)
