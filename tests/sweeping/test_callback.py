"""What Tune tells goes to the listener of the sweep, and to no other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime_pruning.sweeping.callback import SweepCallback, listening
from runtime_pruning.sweeping.reports import ENDED, INFEASIBLE

TRIAL: Any = SimpleNamespace(
    config={"penalty": 0.5},
    storage=SimpleNamespace(trial_fs_path="/there/trial-1"),
    local_path="/here/trial-1",
    last_result={},
)


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def on_trial_start(self, params: dict[str, Any]) -> None:
        self.said.append(("start", params))

    def on_point(self, folder: str) -> None:
        self.said.append(("point", folder))

    def on_trial_end(
        self, params: dict[str, Any], error: Path | None, infeasible: str = ""
    ) -> None:
        self.said.append(("end", params, error, *([infeasible] if infeasible else [])))


def test_a_sweeps_listener_hears_of_its_trials_only() -> None:
    ours, others = Heard(), Heard()
    callback = SweepCallback("s1")
    with listening("s1", ours), listening("s2", others):
        callback.on_trial_start(0, [], TRIAL)
        callback.on_trial_result(0, [], TRIAL, {"checkpoint_dir_name": "checkpoint_000001"})
        callback.on_trial_result(0, [], TRIAL, {ENDED: True})  # brings no point
        callback.on_trial_complete(0, [], TRIAL)
        callback.on_trial_error(0, [], TRIAL)
    assert ours.said == [
        ("start", {"penalty": 0.5}),
        ("point", "/there/trial-1/checkpoint_000001"),
        ("end", {"penalty": 0.5}, None),
        ("end", {"penalty": 0.5}, Path("/here/trial-1/error.txt")),
    ]
    assert others.said == []


def test_why_points_are_missing_is_told_at_the_end() -> None:
    ours = Heard()
    told = {ENDED: True, INFEASIBLE: "No network is that small."}
    trial: Any = SimpleNamespace(config={"budget": 0.1}, last_result=told)
    with listening("s1", ours):
        SweepCallback("s1").on_trial_complete(0, [], trial)
    assert ours.said == [("end", {"budget": 0.1}, None, "No network is that small.")]


def test_nobody_listens_once_the_sweep_is_over() -> None:
    with listening("s1", Heard()):
        pass
    with pytest.raises(KeyError):
        SweepCallback("s1").on_trial_start(0, [], TRIAL)
