"""Methods side by side, by hand."""

from types import ModuleType

import pytest

from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.ranking import (
    hours_of,
    ranked_by_macs,
    ranked_by_time,
    ranking_table,
)
from runtime_pruning.frontier.timings import PointTiming


@pytest.fixture
def points(synthetic: ModuleType) -> dict[str, list[OperatingPoint]]:
    """Two methods at 30 and 60 %, of which one loses accuracy, and one that is always dear."""

    def of(method: str, skill: float, *fractions: float) -> list[OperatingPoint]:
        return [
            synthetic.make_point(fraction, method=method, skill=skill, index=index)[0]
            for index, fraction in enumerate(fractions)
        ]

    return {
        "good": of("good", 1.0, 0.28, 0.6),
        "bad": of("bad", 0.8, 0.28, 0.6),
        "dear": of("dear", 1.0, 0.9),
    }


def timing(speedup: float | None) -> PointTiming:
    return PointTiming(
        device="cpu",
        fingerprint={},
        batch=64,
        images=128,
        mode="ragged",
        kernels="compiled",
        verdict="faster" if speedup else "contaminated",
        macs_speedup=2.0,
        speedup=None if speedup is None else (speedup, speedup, speedup),
    )


def test_the_most_accurate_within_the_budget_comes_first(
    points: dict[str, list[OperatingPoint]],
) -> None:
    places = ranked_by_macs(points, 0.5)
    assert [(place.method, place.rank) for place in places] == [
        ("good", 1),
        ("bad", 2),
        ("dear", None),
    ]
    assert places[0].point == points["good"][0]
    assert places[2].point is None
    assert ranked_by_macs(points, 0.7)[0].point == points["good"][1]


def test_methods_that_are_equally_accurate_share_a_place(
    points: dict[str, list[OperatingPoint]],
) -> None:
    places = ranked_by_macs({"a": points["good"], "b": points["good"], "c": points["bad"]}, 0.5)
    assert [(place.method, place.rank) for place in places] == [("a", 1), ("b", 1), ("c", 3)]


def test_time_counts_where_a_clock_could_be_believed(
    points: dict[str, list[OperatingPoint]],
) -> None:
    good, bad = points["good"][0], points["bad"][0]
    timings = {good.point_id: [timing(None)], bad.point_id: [timing(2.5)]}
    places = ranked_by_time(points, timings, 0.5, batch=64)
    assert (places[0].method, places[0].rank) == ("bad", 1)
    assert [place.point for place in places[1:]] == [None, None]
    assert ranked_by_time(points, timings, 0.3, batch=64)[0].point is None  # takes 40 %
    assert ranked_by_time(points, timings, 0.5, batch=1)[0].point is None  # not timed at 1


def test_hours_are_those_of_each_trials_last_point(
    points: dict[str, list[OperatingPoint]],
) -> None:
    # Points of a trial of their own each, 12.5 s: their configurations differ.
    assert hours_of(points["good"]) == pytest.approx(2 * 12.5 / 3600)
    assert hours_of([points["good"][0]] * 2) == pytest.approx(12.5 / 3600)


def test_the_table_has_a_row_per_method(points: dict[str, list[OperatingPoint]]) -> None:
    table = ranking_table(points, {}, ())
    rows = [line.split(" | ") for line in table.splitlines()]
    assert rows[0][0] == "| method"
    assert [row[0] for row in rows[2:]] == ["| bad", "| dear", "| good"]
    good = points["good"][0]
    assert rows[4][1] == f"{good.accuracy:.2%} (1.)"
    assert rows[3][1] == ""  # nothing within 30 %
