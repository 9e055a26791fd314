"""Candidates from a real store, and the answer in words."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient

from runtime_pruning import glossary
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier import write_record
from runtime_pruning.frontier.choosing import Constraints, choose
from runtime_pruning.frontier.details import Details, class_loss
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.picking import candidates, plain, told, with_device
from runtime_pruning.tracking.rebuild import point_runs

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
    tracker.finish()
    client = MlflowClient(uri)
    (run,) = [run for run in point_runs(client, "s1") if run.data.params.get("penalty") == "0.05"]
    for quantile, value in (("p50", 1.2), ("p95", 1.9)):
        metric = glossary.latency("cpu-t1", 1, quantile)  # type: ignore[arg-type]
        client.log_metric(run.info.run_id, metric.name, value)
    client.log_metric(run.info.run_id, "latency_ms.cpu-t1.1.speedup_low", 2.0)
    return uri


def test_candidates_are_what_the_store_holds(stored: str, synthetic: ModuleType) -> None:
    found = {c.macs_fraction: c for c in candidates(stored, ["s1"])}
    cheap, dear, dense = (found[share] for share in sorted(found))
    assert cheap.latency_ms == {"cpu-t1.1.p50": 1.2, "cpu-t1.1.p95": 1.9}
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
