"""A frontier in one value, by hand."""

from dataclasses import replace
from types import ModuleType

import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.uncertainty import Evidence

Measured = list[tuple[OperatingPoint, Evidence]]


def test_summary_by_hand(summary: FrontierSummary) -> None:
    cheap, dear, beaten = summary.points
    assert [point.penalty for point in summary.points] == [0.05, 0.02, None]
    assert summary.on_front_P.tolist() == [True, True, False]
    assert summary.front == (cheap, dear)
    assert summary.probability_P.tolist() == [1.0, 1.0, 0.0]
    expected = (1.1 - cheap.macs_fraction) * cheap.accuracy
    expected += (1.1 - dear.macs_fraction) * (dear.accuracy - cheap.accuracy)
    assert summary.hypervolume == pytest.approx(expected)
    for p, point in enumerate(summary.points):
        assert summary.accuracy.low_P[p] < point.accuracy < summary.accuracy.high_P[p]
    assert beaten.accuracy < cheap.accuracy


def test_points_that_do_not_compare_are_refused(synthetic: ModuleType) -> None:
    one, record = synthetic.make_point(0.3)
    facts = Evidence.of(record)
    with pytest.raises(DataError, match="must share dataset"):
        summarise([one, replace(one, dataset="other")], [facts, facts], reference=Reference())
    with pytest.raises(DataError, match="must share dataset"):
        summarise([], [], reference=Reference())
