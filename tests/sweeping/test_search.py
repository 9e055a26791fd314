"""The search: every point of a trial reaches Optuna once, and nothing stays running."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from runtime_pruning.sweeping.config import Range, SweepConfig
from runtime_pruning.sweeping.search import FrontierSearch, opening_points


def make_sweep(**changes: Any) -> SweepConfig:
    settings: dict[str, Any] = {
        "backbone": "digits-cnn",
        "dataset": "digits",
        "trials": 6,
        "search": {"penalty": Range(low=0.01, high=1.0, scale="log"), "groups": (2, 4)},
    }
    return SweepConfig(**{**settings, **changes})


def result(point: int, accuracy: float, macs: float) -> dict[str, Any]:
    return {"point": point, "accuracy": accuracy, "macs_fraction": macs}


def states(search: FrontierSearch) -> list[TrialState]:
    return [trial.state for trial in search._ot_study.trials]


def test_the_first_trials_visit_every_group_count_at_the_geometric_middle() -> None:
    search = FrontierSearch(make_sweep())
    suggested = [search.suggest(f"t{i}") for i in range(2)]
    assert suggested == opening_points(make_sweep())
    assert [point["groups"] for point in suggested] == [2, 4]
    assert suggested[0]["penalty"] == pytest.approx(0.1)


def test_all_points_of_a_trial_reach_the_study_once() -> None:
    search = FrontierSearch(make_sweep())
    search.suggest("t0")
    for values in (result(0, 0.9, 0.6), result(0, 0.9, 0.6), result(1, 0.95, 0.5)):
        search.on_trial_result("t0", values)
    search.on_trial_complete("t0", result(1, 0.95, 0.5))
    done = [t.values for t in search._ot_study.trials if t.state == TrialState.COMPLETE]
    assert sorted(done) == [[0.9, 0.6], [0.95, 0.5]]


def test_a_trial_without_a_finite_point_fails_and_leaves_nothing_running() -> None:
    search = FrontierSearch(make_sweep())
    for name, values in (("t0", [result(0, float("nan"), 0.5)]), ("t1", [])):
        search.suggest(name)
        for value in values:
            search.on_trial_result(name, value)
        search.on_trial_complete(name, error=not values)
    assert states(search).count(TrialState.FAIL) == 2
    assert TrialState.RUNNING not in states(search)


def test_a_restored_search_suggests_what_it_would_have(tmp_path: Path) -> None:
    def advance(search: FrontierSearch, trials: range) -> list[dict[str, Any]]:
        suggested = []
        for i in trials:
            suggested.append(search.suggest(f"t{i}"))
            search.on_trial_result(f"t{i}", result(0, 0.5 + i / 20, 0.9 - i / 20))
            search.on_trial_complete(f"t{i}", result(0, 0.5 + i / 20, 0.9 - i / 20))
        return suggested

    whole = FrontierSearch(make_sweep(trials=8))
    expected = advance(whole, range(8))
    first = FrontierSearch(make_sweep(trials=8))
    advance(first, range(4))
    first.save(str(tmp_path / "search.pkl"))
    second = FrontierSearch(make_sweep(trials=8))
    second.restore(str(tmp_path / "search.pkl"))
    assert advance(second, range(4, 8)) == expected[4:]


def test_suggestions_stay_inside_the_space() -> None:
    search = FrontierSearch(make_sweep())
    for i in range(12):
        suggested = search.suggest(f"t{i}")
        assert 0.01 <= suggested["penalty"] <= 1.0
        assert suggested["groups"] in (2, 4)
        search.on_trial_result(f"t{i}", result(0, 0.5, 0.5))
        search.on_trial_complete(f"t{i}", result(0, 0.5, 0.5))
