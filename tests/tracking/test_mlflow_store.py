"""A sweep in a real SQLite store: what is written, once, whatever the store does meanwhile."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient
from stores import by_id, log_point, runs_of, settle

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier import derive, write_record
from runtime_pruning.frontier.dominance import Reference, hypervolume, losses_of, pareto_mask
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


@pytest.fixture
def broken(uri: str) -> tuple[Callable[[str], None], Callable[[], None]]:
    """Makes a table refuse new rows, as a full disk would; gives back the way to mend it."""
    database = uri.removeprefix("sqlite:///")

    def break_table(table: str) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(
                f"CREATE TRIGGER deny BEFORE INSERT ON {table} "
                "BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
            )

    def mend() -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DROP TRIGGER deny")

    return break_table, mend


def test_a_sweep_is_nested_runs(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, tmp_path: Path
) -> None:
    sweep = synthetic.make_sweep()
    tracker.start_sweep({"trials": 12, "prepare": {"lr": 0.1}})
    for point, record in sweep:
        tracker.start_trial(point.trial_key, point.config)
        log_point(tracker, (point, record))
        tracker.finish_trial(point.trial_key)
    assert tracker.finish() == 0

    (root,) = runs_of(uri, "sweep")
    trials, points = runs_of(uri, "trial"), by_id(uri)
    assert {run.info.status for run in [root, *trials, *points.values()]} == {"FINISHED"}
    assert len(trials) == len(points) == 12
    assert root.data.params == {
        "trials": "12",
        "prepare.lr": "0.1",
        "reference_accuracy": "0.0",
        "reference_macs_fraction": "1.1",
    }
    assert {run.data.tags[glossary.PARENT] for run in trials} == {root.info.run_id}
    trial_of = {run.data.tags[glossary.TRIAL_KEY]: run.info.run_id for run in trials}
    losses = losses_of([point for point, _ in sweep])
    for (point, _), on_front in zip(sweep, pareto_mask(losses), strict=True):
        run = points[point.point_id]
        assert run.data.tags[glossary.PARENT] == trial_of[point.trial_key]
        assert run.data.tags[glossary.ON_FRONT] == ("true" if on_front else "false")
        assert run.data.tags[glossary.METHOD] == point.method
        assert run.data.params["backbone"] == "resnet20-cifar"
        assert run.data.params["config.fraction"] == str(point.config["fraction"])
        assert run.data.metrics["accuracy"] == point.accuracy
        assert run.data.metrics["executed_macs_per_image"] == point.executed_macs_per_image
        assert run.data.metrics["macs_fraction"] == point.macs_fraction
        assert set(run.data.metrics) <= {metric.name for metric in glossary.ALL_METRICS}

    client = MlflowClient(uri)
    assert root.data.metrics["points_done"] == 12
    assert root.data.metrics["hypervolume"] == hypervolume(losses, Reference().losses_K)
    history = client.get_metric_history(root.info.run_id, "hypervolume")
    assert [entry.step for entry in history] == list(range(1, 13))
    volumes = [entry.value for entry in history]
    assert volumes == sorted(volumes)
    names = {file.path for file in client.list_artifacts(root.info.run_id)}
    assert names == {glossary.PAGE, glossary.PICTURE, glossary.TABLE, glossary.SWEEP}
    note = root.data.tags[glossary.NOTE]
    assert f"{int(pareto_mask(losses).sum())} on the front" in note
    assert str(tracker.page_path).removeprefix("/") in note
    assert "| accuracy | 0 to 1 | higher |" in note
    assert str(tmp_path) in client.get_experiment(root.info.experiment_id).artifact_location
    # From MLflow alone, the same to the last bit.
    assert rebuild(uri, "s1") == sorted(sweep, key=lambda m: (m[0].trial_key, m[0].index))


def test_logging_again_changes_nothing(
    tracker: FrontierTracker,
    uri: str,
    synthetic: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    point, record = synthetic.make_point(0.5)
    tracker.start_sweep({"trials": 1})
    tracker.start_trial(point.trial_key, point.config)
    log_point(tracker, (point, record))
    first = by_id(uri)[point.point_id]

    other = synthetic.make_record(0.6)
    again = FrontierTracker(uri, "frontier", "s1", tmp_path / "another-spool")
    again.start_sweep({"trials": 9})
    again.start_trial(point.trial_key, point.config)
    log_point(again, (replace(derive(other, point.provenance), code_version="later"), other))
    again.finish()

    assert len(runs_of(uri, "sweep")) == len(runs_of(uri, "trial")) == 1
    (run,) = runs_of(uri, "point")
    assert run.data.metrics == first.data.metrics
    assert run.data.params == first.data.params
    assert runs_of(uri, "sweep")[0].data.params["trials"] == "1"
    assert rebuild(uri, "s1") == [(point, record)]
    assert "measured again with other figures" in caplog.text
    assert "keeps trials='1'" in caplog.text


@pytest.mark.parametrize("table", ["runs", "metrics", "params", "latest_metrics", "experiments"])
def test_a_store_that_fails_delays_but_loses_nothing(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, broken: Any, table: str
) -> None:
    break_table, mend = broken
    one, two = synthetic.make_point(0.4), synthetic.make_point(0.6)
    if table != "experiments":
        tracker.start_sweep({"trials": 2})
        log_point(tracker, one)
    break_table(table)
    tracker.start_sweep({"trials": 2})
    log_point(tracker, one)
    log_point(tracker, two)
    assert tracker.finish() > 0
    mend()
    assert tracker.replay() == 0
    assert len(runs_of(uri, "sweep")) == 1
    assert len(runs_of(uri, "trial")) == 2
    assert len(runs_of(uri, "point")) == 2
    assert sorted(rebuild(uri, "s1"), key=lambda m: m[0].macs_fraction) == [one, two]
    assert {run.info.status for run in runs_of(uri, "sweep")} == {"FINISHED"}


def test_what_the_store_never_takes_holds_up_nothing(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.start_sweep({})
    with caplog.at_level(logging.ERROR):
        tracker.start_trial("t1", {"a name with %": 1})
        settle(tracker)
    assert "An event can never be written" in caplog.text
    log_point(tracker, synthetic.make_point(0.5))
    assert tracker.finish() == 0
    assert len(runs_of(uri, "point")) == 1


def test_a_sweep_goes_on_after_its_end(tracker: FrontierTracker, uri: str, tmp_path: Path) -> None:
    tracker.start_sweep({})
    tracker.start_trial("t1", {})
    tracker.finish("KILLED")
    assert [run.info.status for run in runs_of(uri, "sweep") + runs_of(uri, "trial")] == [
        "KILLED",
        "KILLED",
    ]
    again = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    again.start_sweep({})
    again.start_trial("t1", {})
    settle(again)
    assert {run.info.status for run in runs_of(uri, "sweep") + runs_of(uri, "trial")} == {"RUNNING"}
    again.finish()
    assert {run.info.status for run in runs_of(uri, "sweep") + runs_of(uri, "trial")} == {
        "FINISHED"
    }


def test_what_cannot_be_right_raises(
    tracker: FrontierTracker, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(0.5)
    path = tmp_path / "r.parquet"
    with pytest.raises(DataError, match="which does not exist"):
        tracker.log_point(point, path)
    write_record(record, path)
    with pytest.raises(DataError, match="of the test split, but got validation"):
        tracker.log_test_point(point, path)
    with pytest.raises(DataError, match="of the validation split, but got test"):
        tracker.log_point(replace(point, split="test"), path)
    with pytest.raises(DataError, match="does not belong to 's1'"):
        tracker.log_point(replace(point, sweep_id="s2"), path)


def test_each_trial_has_its_own_end(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType
) -> None:
    tracker.start_sweep({})
    for key in ("good", "bad", "cut"):
        tracker.start_trial(key, {"p": key})
    tracker.finish_trial("bad", "FAILED", "Traceback: ZeroDivisionError")
    tracker.finish_trial("good", infeasible="No network is that small.")
    tracker.finish("FAILED")
    runs = {run.data.tags[glossary.TRIAL_KEY]: run for run in runs_of(uri, "trial")}
    assert {key: run.info.status for key, run in runs.items()} == {
        "good": "FINISHED",
        "bad": "FAILED",
        "cut": "KILLED",
    }
    assert all(run.info.end_time >= run.info.start_time for run in runs.values())
    client, bad = MlflowClient(uri), runs["bad"].info.run_id
    assert [file.path for file in client.list_artifacts(bad)] == [glossary.ERROR]
    assert runs_of(uri, "sweep")[0].info.status == "FAILED"
    told = {key: run.data.tags.get(glossary.INFEASIBLE) for key, run in runs.items()}
    assert told == {"good": "No network is that small.", "bad": None, "cut": None}


def test_a_report_is_drawn_though_the_store_is_dead(synthetic: ModuleType, tmp_path: Path) -> None:
    tracker = FrontierTracker(
        "http://127.0.0.1:9", "frontier", "s1", tmp_path / "spool", report_dir=tmp_path
    )
    for measured in synthetic.make_sweep()[:3]:
        log_point(tracker, measured)
    assert tracker.finish() == 4
    assert {path.name for path in tmp_path.glob("frontier.*")} == {
        glossary.PAGE,
        glossary.PICTURE,
        glossary.TABLE,
    }
    assert tracker.report is not None
    assert len(tracker.report.summary.points) == 3
