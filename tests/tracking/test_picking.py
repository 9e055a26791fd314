"""Candidates from a real store, and the answer in words."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient

from runtime_pruning.cli.app import main
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier import derive, write_record
from runtime_pruning.frontier.choosing import Constraints, choose
from runtime_pruning.frontier.details import Details, class_loss
from runtime_pruning.frontier.timings import PointTiming, write_timings
from runtime_pruning.tracking.boards import read_board
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.picking import candidates, plain, told, with_device
from runtime_pruning.tracking.rebuild import point_runs

DENSE_MACS = 40_000_000
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


@pytest.fixture(scope="module")
def stored(migrated: Path, tmp_path_factory: pytest.TempPathFactory, synthetic: ModuleType) -> str:
    """A sweep of three points, of which the cheapest was timed."""
    tmp_path = tmp_path_factory.mktemp("picking")
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    tracker.start_sweep({})
    made = [
        synthetic.make_point(0.3, penalty=0.05),
        synthetic.make_point(0.6, penalty=0.02),
        synthetic.make_point(1.0, method="dense"),
    ]
    for number, (point, record) in enumerate(made):
        path = tmp_path / f"{number}.parquet"
        write_record(record, path)
        tracker.log_point(point, path)
    timing = PointTiming(
        device="cpu-t1",
        fingerprint={},
        batch=1,
        images=8,
        mode="ragged",
        kernels="compiled",
        verdict="faster",
        macs_speedup=3.0,
        speedup=(2.0, 2.5, 3.0),
        latency_ms={"p50": 1.2, "p90": 1.8, "p95": 1.9, "p99": 2.2},
    )
    write_timings([timing], tmp_path / "timings.json")
    tracker.log_timings(made[0][0], tmp_path / "timings.json")
    test_record = synthetic.make_record(0.3, split="test", seed=3)
    write_record(test_record, tmp_path / "test.parquet")
    tracker.log_test_point(derive(test_record, made[0][0].provenance), tmp_path / "test.parquet")
    tracker.finish()
    larger = FrontierTracker(uri, "frontier", "larger", tmp_path / "spool-larger")
    larger.start_sweep({})
    point, record = synthetic.make_point(1.0, sweep_id="larger", method="dense")
    wide = replace(point.provenance, backbone="resnet56-cifar", dense_macs=2 * point.dense_macs)
    write_record(record, tmp_path / "larger.parquet")
    larger.log_point(derive(record, wide), tmp_path / "larger.parquet")
    larger.finish()
    return uri


def test_a_board_is_what_the_store_holds(stored: str, synthetic: ModuleType) -> None:
    board = read_board(stored, ["s1"])
    cheap = next(point for point in board.points if point.penalty == 0.05)
    extra = board.extras[cheap.point_id]
    assert extra.details == Details.of(synthetic.make_record(0.3))
    assert extra.tested is not None
    assert (
        extra.tested.figures.accuracy
        == synthetic.make_record(0.3, split="test", seed=3).correct_N.mean()
    )
    assert extra.tested.low < extra.tested.figures.accuracy < extra.tested.high
    (run,) = [
        r for r in point_runs(MlflowClient(stored), "s1") if r.data.params.get("penalty") == "0.05"
    ]
    assert extra.run_path == f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert [timing.batch for timing in board.timings[cheap.point_id]] == [1]


def test_sweeps_of_several_backbones_share_the_dearest_reference(
    stored: str, tmp_path: Path
) -> None:
    board = read_board(stored, ["s1", "larger"])
    assert {point.dense_macs for point in board.points} == {2 * DENSE_MACS}
    small, large = (point for point in board.points if point.method == "dense")
    assert (small.macs_fraction, large.macs_fraction) == (
        pytest.approx(small.executed_macs_per_image / (2 * DENSE_MACS)),
        pytest.approx(large.executed_macs_per_image / (2 * DENSE_MACS)),
    )
    summary = board.draw(tmp_path).summary
    assert len(summary.points) == 4
    assert {point.backbone for point in summary.points} == {"resnet20-cifar", "resnet56-cifar"}


def test_candidates_are_what_the_store_holds(stored: str, synthetic: ModuleType) -> None:
    found = {c.macs_fraction: c for c in candidates(stored, ["s1"])}
    cheap, dear, dense = (found[share] for share in sorted(found))
    assert cheap.latency_ms["cpu-t1.1.p50"] == 1.2
    assert cheap.latency_ms["cpu-t1.1.p95"] == 1.9
    assert dear.latency_ms == {}
    records = [synthetic.make_record(share) for share in (0.3, 1.0)]
    expected = class_loss(*(Details.of(record) for record in records))
    assert cheap.class_loss == pytest.approx(expected)
    assert dense.class_loss == 0.0
    assert cheap.backbone == "resnet20-cifar"


def test_the_answer_in_words_and_as_json(stored: str) -> None:
    pool = candidates(stored, ["s1"])
    asked = with_device({"max_p95_ms": 2.0}, pool)
    assert asked.device == "cpu-t1"  # the only one that points were timed on
    choice = choose(pool, asked)
    text = told(choice)
    assert choice.best is not None
    assert f"runtime-pruning export {choice.best.point_id}" in text
    assert "p95 1.9 ms" in text
    assert "p95 was not measured" in text
    facts = json.loads(json.dumps(plain(choice), allow_nan=False))
    assert facts["point"]["point_id"] == choice.best.point_id
    assert facts["runners_up"][0]["failures"][0]["miss"] is None
    none = choose(pool, Constraints(min_accuracy=0.99))
    assert "No point is feasible. The nearest miss:" in told(none)
    assert "% < 99 %" in told(none)
    assert plain(none)["point"] is None
    assert plain(none)["nearest_miss"]["failures"][0]["constraint"] == "min_accuracy"


def test_a_device_that_no_point_was_timed_on_is_named(stored: str) -> None:
    pool = candidates(stored, ["s1"])
    assert with_device({"min_accuracy": 0.5}, pool).device is None
    with pytest.raises(ConfigError, match=r"timed on: cpu-t1 \(batch 1\)"):
        with_device({"max_p95_ms": 2.0, "device": "gpu"}, pool)
    with pytest.raises(ConfigError, match=r"at batch 64"):
        with_device({"max_p95_ms": 2.0, "batch": 64}, pool)
    with pytest.raises(ConfigError, match="timed on: none"):
        with_device({"max_p95_ms": 2.0}, [])


def test_a_sweep_without_points_is_named(stored: str) -> None:
    with pytest.raises(DataError, match="No operating point of a sweep 's2'"):
        candidates(stored, ["s1", "s2"])


def test_the_command_line_ends_with_3_where_nothing_is_feasible(
    stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stored)
    assert main(["pick", "s1", "--macs", "0.5"]) == 0
    assert "best of 1 feasible point(s): the most accurate" in capsys.readouterr().out
    assert main(["pick", "s1", "--accuracy", "0.999", "--json"]) == 3
    facts = json.loads(capsys.readouterr().out)
    assert facts["point"] is None
    assert facts["nearest_miss"]["failures"][0]["limit"] == 0.999
    assert main(["pick", "s1", "--method", "rpn"]) == 2
    assert "`method` must be one of ['dense', 'rnp'], but got 'rpn'." in capsys.readouterr().err
    assert main(["pick", "s1", "--prefer", "speed"]) == 2
    assert main(["pick", "s1", "--accuracy", "91"]) == 2
    assert "`0 <= min_accuracy <= 1` must hold, but got 91" in capsys.readouterr().err
