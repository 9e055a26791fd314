"""Trials that have fallen behind are stopped, by both objectives at once."""

from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from runtime_pruning.sweeping.callback import listening
from runtime_pruning.sweeping.config import EarlyStopping
from runtime_pruning.sweeping.early_stopping import FrontierRungs, Rungs, priority
from runtime_pruning.sweeping.reports import Stop

SETTINGS = EarlyStopping(first=100, factor=2, keep=0.5)


class Told:
    """A trial, as the scheduler sees it, and a listener."""

    def __init__(self, trial_id: str = "t") -> None:
        self.trial_id, self.config = trial_id, {"penalty": trial_id}
        self.stops: list[tuple[dict[str, Any], Stop]] = []

    def on_stop(self, params: dict[str, Any], stop: Stop) -> None:
        self.stops.append((params, stop))


def test_fronts_come_one_by_one_and_each_is_spread_out() -> None:
    losses_P2 = [
        (0.1, 1.0),  # 0: the front's most accurate
        (0.2, 0.9),  # 1
        (0.5, 0.1),  # 2: far from all others of the front
        (0.2, 1.0),  # 3: beaten by 0 and 1
        (0.3, 0.5),  # 4: in the middle of the front
        (0.9, 0.9),  # 5: beaten by a beaten one? only by 1, 2 and 4: second front with 3
    ]
    # Front {0, 1, 2, 4}: after 0 the farthest is 2, then 4, then 1. Then {3, 5}, 3 more accurate.
    assert priority(losses_P2) == [0, 2, 4, 1, 3, 5]


def test_a_point_that_is_no_number_comes_last() -> None:
    assert priority([(float("nan"), 0.1), (0.5, 0.5), (0.6, 0.6)]) == [1, 2, 0]


@pytest.mark.parametrize(
    ("effort", "rung"), [(99, None), (100, 0), (199, 0), (200, 1), (399, 1), (400, 2), (12_800, 7)]
)
def test_rungs_lie_at_multiples_of_the_factor(effort: float, rung: int | None) -> None:
    assert Rungs(SETTINGS).rung_of(effort) == rung


def test_a_trial_behind_both_objectives_stops_and_one_on_the_front_goes_on() -> None:
    rungs = Rungs(SETTINGS)
    assert rungs.add("a", 100, (0.1, 0.5), stage_ended=True) is None
    # Of two, one goes on: b is beaten by a.
    assert rungs.add("b", 100, (0.2, 0.6), stage_ended=True) == Stop(0, 100, 2, 2, 1)
    # Of three, two: c is on the front, at the other end.
    assert rungs.add("c", 120, (0.4, 0.1), stage_ended=True) is None
    # Nothing below the first rung, nothing twice at one.
    assert rungs.add("d", 50, (0.9, 0.9), stage_ended=True) is None
    assert rungs.add("c", 150, (0.9, 0.9), stage_ended=True) is None
    # The first at the next rung.
    assert rungs.add("c", 200, (0.9, 0.9), stage_ended=True) is None


def test_a_stage_with_several_points_counts_by_its_best() -> None:
    rungs = Rungs(SETTINGS)
    assert rungs.add("a", 100, (0.1, 0.5), stage_ended=True) is None
    assert rungs.add("b", 100, (0.9, 0.9), stage_ended=False) is None
    assert rungs.add("b", 100, (0.05, 0.5), stage_ended=True) is None
    # What has no point ahead of a's and b's best is third of three.
    assert rungs.add("c", 100, (0.2, 0.5), stage_ended=False) is None
    assert rungs.add("c", 100, (0.3, 0.5), stage_ended=True) == Stop(0, 100, 3, 3, 2)


def result(accuracy: float, macs: float, steps: int, **more: Any) -> dict[str, Any]:
    own = {"accuracy": accuracy, "macs_fraction": macs, "env_steps": steps, "stage_ended": True}
    return {**own, **more}


def test_tunes_scheduler_stops_once_and_tells_why() -> None:
    listener: Any = Told()
    known = [("a", result(0.9, 0.5, 100)), ("a", {"point": 0})]  # before this start
    scheduler = FrontierRungs(SETTINGS, "s1", known)
    with listening("s1", listener):

        def on(name: str, told: dict[str, Any]) -> str:
            return scheduler.on_trial_result(None, Told(name), told)  # type: ignore[arg-type]

        assert on("b", result(0.8, 0.6, 100, ended=True)) == TrialScheduler.CONTINUE
        assert on("b", result(0.8, 0.6, 100)) == TrialScheduler.STOP
        assert on("c", result(0.95, 0.6, 100)) == TrialScheduler.CONTINUE
    assert listener.stops == [({"penalty": "b"}, Stop(0, 100, 2, 2, 1))]
