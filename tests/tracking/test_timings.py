"""Timings of a point in a real store: by device, once, and back again."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier import write_record
from runtime_pruning.frontier.timings import PointTiming, write_timings
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild_timings

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

FAST = PointTiming(
    device="cpu-a",
    fingerprint={"model": "a CPU"},
    batch=64,
    images=128,
    mode="ragged",
    kernels="compiled",
    verdict="faster",
    macs_speedup=2.0,
    speedup=(1.7, 1.8, 1.9),
    latency_ms={"p50": 1.0, "p90": 1.1, "p95": 1.2, "p99": 1.5},
    dense_ms=1.8,
)


def test_timings_are_metrics_of_the_point_and_columns_of_the_table(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "r.parquet")
    tracker.start_sweep({})
    tracker.log_point(point, tmp_path / "r.parquet")
    other = replace(FAST, device="cpu-b", speedup=(2.7, 2.8, 2.9))
    for timing in (FAST, other, replace(FAST, speedup=(9.0, 9.0, 9.0))):  # the last comes too late
        write_timings([timing], tmp_path / "timings.json")
        tracker.log_timings(point, tmp_path / "timings.json")
        assert tracker.replay() == 0

    client = MlflowClient(uri)
    (run,) = client.search_runs(["1"], "tags.`frontier.kind` = 'point'")
    assert run.data.tags[glossary.TIMED] == "cpu-a cpu-b"
    assert {**FAST.metrics, **other.metrics}.items() <= run.data.metrics.items()
    assert rebuild_timings(uri, "s1") == {point.point_id: [FAST, other]}

    # A driver that starts again knows of them.
    assert FrontierTracker(uri, "frontier", "s1", tmp_path / "spool").finish() == 0
    (sweep,) = client.search_runs(["1"], "tags.`frontier.kind` = 'sweep'")
    note = sweep.data.tags[glossary.NOTE]
    assert "speed-up, batch 64, cpu-a" in note
    assert "1.80 [1.70, 1.90]" in note


def test_a_file_of_two_devices_is_refused(uri: str, tmp_path: Path, synthetic: ModuleType) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    point, _ = synthetic.make_point(0.5)
    write_timings([FAST, replace(FAST, device="cpu-b")], tmp_path / "timings.json")
    with pytest.raises(DataError, match=r"of one device, but got \['cpu-a', 'cpu-b'\]"):
        tracker.log_timings(point, tmp_path / "timings.json")
