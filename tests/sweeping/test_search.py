"""The search: every point of a trial reaches Optuna once, and nothing stays running."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import ConcurrencyLimiter

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


def test_no_more_live_trials_than_this_start_allows(tmp_path: Path) -> None:
    """Tune's own limiter would bring back the limit of the snapshot."""
    before = ConcurrencyLimiter(FrontierSearch(make_sweep()), max_concurrent=1)
    assert before.suggest("t0") is not None
    assert before.suggest("t1") is None
    before.searcher.save(str(tmp_path / "search.pkl"))
    search = FrontierSearch(make_sweep())
    ConcurrencyLimiter(search, max_concurrent=2)
    search.restore(str(tmp_path / "search.pkl"))
    assert search.suggest("t1") is not None
    assert search.suggest("t2") is None
    search.on_trial_complete("t0", error=True)
    assert search.suggest("t2") is not None


def test_an_extension_knows_the_points_so_far_and_opens_no_dimension_again() -> None:
    sweep = make_sweep()
    known = [
        SimpleNamespace(
            config={"penalty": 0.02 + 0.1 * number, "groups": 2, "rounds": 2},
            accuracy=0.5 + 0.1 * number,
            macs_fraction=0.3 + 0.1 * number,
        )
        for number in range(5)
    ]
    search = FrontierSearch(sweep, known)  # type: ignore[arg-type]
    told = [trial.values for trial in search._ot_study.trials]
    assert told == [[point.accuracy, point.macs_fraction] for point in known]
    suggested = [search.suggest(f"t{number}") for number in range(3)]
    assert not any(each in suggested for each in opening_points(sweep))


def test_each_configuration_is_tried_under_each_seed_and_told_by_the_mean() -> None:
    search = FrontierSearch(make_sweep(seeds=(3, 5)))
    one, again, other = (search.suggest(name) for name in "abc")
    assert one is not None
    assert again == {**one, "seed": 5}
    assert one["seed"] == 3
    assert other is not None
    assert {**other, "seed": 5} != again
    search.on_trial_result("a", {"accuracy": 0.9, "macs_fraction": 0.4, "point": 0})
    search.on_trial_complete("a")
    assert not [trial for trial in search._ot_study.trials if trial.values]
    search.on_trial_result("b", {"accuracy": 0.5, "macs_fraction": 0.2, "point": 0})
    search.on_trial_complete("b")
    (told,) = [trial for trial in search._ot_study.trials if trial.values]
    assert told.values == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, r"`seeds` must be different, but got \[1, 1\]"),
        ({"seeds": (1, 2), "early_stopping": {"first": 10}}, "`early_stopping` must be absent"),
    ],
)
def test_seeds_that_make_no_mean_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sweep(**changes)


def test_a_dimension_may_be_of_names() -> None:
    sweep = make_sweep(search={"groups": (2,), "subset": ("0-1", "0-1-2", "0-2")}, trials=4)
    search = FrontierSearch(sweep)
    assert opening_points(sweep) == [{"groups": 2, "subset": "0-1-2"}]
    suggested = [search.suggest(f"t{i}")["subset"] for i in range(4)]
    assert set(suggested) <= {"0-1", "0-1-2", "0-2"}
