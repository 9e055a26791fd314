"""Controls of a point in a real store: once, checked, and back again."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier import OperatingPoint, Record, derive, write_record
from runtime_pruning.frontier.explanation import explain
from runtime_pruning.frontier.proof import CONTROLS, Controls, control_path, prove
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild_proofs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def put_dynamics(
    folder: Path, synthetic: ModuleType, point: OperatingPoint, record: Record, skill: float
) -> Controls:
    """Fill a folder as a worker does, without pictures: controls of a lower skill."""
    folder.mkdir()
    for name in CONTROLS:
        control = synthetic.make_record(0.5, skill=skill, split=record.split)
        write_record(control, control_path(folder, name, 0))
    bounds = [list(range(1, 81))] * synthetic.SITES
    (folder / glossary.CONTROLS_FILE).write_text(json.dumps({"bounds": bounds}))
    dynamics = explain(point, record, folder, record, tuple("abcdefghij"))
    (folder / glossary.DYNAMICS_FILE).write_text(json.dumps(dynamics.to_dict()))
    return Controls.read(folder)


def only_point(uri: str) -> Run:
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`frontier.kind` = 'point'")
    return run


def test_a_proof_is_tracked_drawn_and_rebuilt(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "r.parquet")
    folder = tmp_path / glossary.DYNAMICS
    controls = put_dynamics(folder, synthetic, point, record, skill=0.8)
    tracker.start_sweep({})
    tracker.log_point(point, tmp_path / "r.parquet")
    tracker.log_dynamics(point, "validation", folder)
    tracker.log_dynamics(point, "validation", folder)
    assert tracker.replay() == 0

    expected = prove(record, controls)
    assert expected.verdict == "dynamic"
    run = only_point(uri)
    assert run.data.tags[glossary.VERDICT] == "dynamic"
    assert run.data.metrics["advantage_shuffled"] == expected.shuffled.value
    assert run.data.metrics["advantage_fixed_low"] == expected.fixed.low
    names = {metric.name for metric in glossary.DYNAMICS_METRICS} & set(run.data.metrics)
    oracle = {metric.name for metric in glossary.UPPER_BOUND}
    assert names == {metric.name for metric in glossary.DYNAMICS_METRICS} - oracle
    assert set(run.data.metrics) <= {metric.name for metric in glossary.ALL_METRICS}
    files = MlflowClient(uri).list_artifacts(run.info.run_id, glossary.DYNAMICS)
    assert {Path(file.path).name for file in files} == {path.name for path in folder.iterdir()}
    assert rebuild_proofs(uri, "s1", "validation") == {point.point_id: expected}
    assert rebuild_proofs(uri, "s1", "test") == {}

    # A driver that starts again knows of it; the table in the sweep's description shows it.
    again = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    assert again.finish() == 0
    client = MlflowClient(uri)
    (sweep,) = client.search_runs([run.info.experiment_id], "tags.`frontier.kind` = 'sweep'")
    assert "**dynamic**" in sweep.data.tags[glossary.NOTE]


def test_the_test_splits_controls_stand_beside(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    point, record = synthetic.make_point(0.5)
    tested = synthetic.make_record(0.5, split="test", seed=3)
    write_record(record, tmp_path / "r.parquet")
    write_record(tested, tmp_path / "t.parquet")
    controls = put_dynamics(tmp_path / "test", synthetic, point, tested, skill=1.0)
    tracker.log_point(point, tmp_path / "r.parquet")
    tracker.log_test_point(derive(tested, point.provenance), tmp_path / "t.parquet")
    tracker.log_dynamics(point, "test", tmp_path / "test")
    assert tracker.replay() == 0
    run = only_point(uri)
    assert run.data.tags[glossary.TEST_VERDICT] == "static"
    assert glossary.VERDICT not in run.data.tags
    assert run.data.metrics["test_distinct_plans"] > 1
    assert rebuild_proofs(uri, "s1", "test") == {point.point_id: prove(tested, controls)}


def test_gains_that_the_records_do_not_give_are_found_by_a_rebuild(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "r.parquet")
    folder = tmp_path / glossary.DYNAMICS
    put_dynamics(folder, synthetic, point, record, skill=1.0)
    facts = json.loads((folder / glossary.DYNAMICS_FILE).read_text())
    facts["proof"]["shuffled"]["low"] = 0.5
    (folder / glossary.DYNAMICS_FILE).write_text(json.dumps(facts))
    tracker.log_point(point, tmp_path / "r.parquet")
    tracker.log_dynamics(point, "validation", folder)
    assert tracker.replay() == 0
    with pytest.raises(DataError, match="has gains that"):
        rebuild_proofs(uri, "s1", "validation")


def test_a_folder_without_an_explanation_is_refused(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    with pytest.raises(DataError, match=r"dynamics\.json, which does not exist"):
        tracker.log_dynamics(synthetic.make_point(0.5)[0], "validation", tmp_path)
