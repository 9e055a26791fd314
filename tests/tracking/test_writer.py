"""Each kind of event is written once, and may be written again."""

from pathlib import Path
from types import ModuleType

import pytest
from mlflow import MlflowClient
from stores import by_id, log_point, runs_of, settle

from runtime_pruning import glossary
from runtime_pruning.frontier import derive, write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import load_record, rebuild

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def test_the_test_split_is_added_once(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(0.5)
    log_point(tracker, (point, record))
    test_record = synthetic.make_record(0.5, split="test", seed=9)
    expected = derive(test_record, point.provenance)
    for number, record_again in enumerate((test_record, synthetic.make_record(0.9, split="test"))):
        path = tmp_path / f"test-{number}.parquet"
        write_record(record_again, path)
        tracker.log_test_point(derive(record_again, point.provenance), path)
        settle(tracker)

    for readings in (1, 2, 1):  # an old one, told again, takes none back
        tracker.log_readings(readings)
    settle(tracker)
    assert runs_of(uri, "sweep")[0].data.tags[glossary.TEST_READINGS] == "2"
    (run,) = runs_of(uri, "point")
    assert run.data.metrics["test_accuracy"] == expected.accuracy
    assert run.data.metrics["test_macs_per_image"] == expected.macs_per_image
    assert run.data.metrics["accuracy"] == point.accuracy
    assert load_record(MlflowClient(uri), run, "test") == test_record
    assert rebuild(uri, "s1") == [(point, record)]


def test_a_second_copy_of_a_run_is_deleted(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(0.5)
    log_point(tracker, (point, record))
    (run,) = runs_of(uri, "point")
    # What a server leaves that created a run, answered too late, and was asked again.
    MlflowClient(uri).create_run(run.info.experiment_id, tags=run.data.tags)
    fresh = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    path = tmp_path / "test-record.parquet"
    tested = synthetic.make_record(0.5, split="test")
    write_record(tested, path)
    fresh.log_test_point(derive(tested, point.provenance), path)
    settle(fresh)
    assert [kept.info.run_id for kept in runs_of(uri, "point")] == [run.info.run_id]


def test_a_bundle_and_the_policy_splits_record_are_kept(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "r.parquet")
    (tmp_path / "to-deploy" / "deep").mkdir(parents=True)
    (tmp_path / "to-deploy" / "deep" / "weights.bin").write_bytes(b"\x00\x01")
    learned_from = synthetic.make_record(0.5, split="policy")
    write_record(learned_from, tmp_path / "p.parquet")
    tracker.log_point(
        point,
        tmp_path / "r.parquet",
        tmp_path / "to-deploy",
        policy_record=tmp_path / "p.parquet",
    )
    settle(tracker)
    (run,) = runs_of(uri, "point")
    client = MlflowClient(uri)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {glossary.RECORD, glossary.POLICY_RECORD, glossary.POINT, glossary.BUNDLE}
    assert load_record(client, run, "policy") == learned_from
    deep = client.list_artifacts(run.info.run_id, f"{glossary.BUNDLE}/deep")
    assert [file.path for file in deep] == ["bundle/deep/weights.bin"]


@pytest.mark.parametrize("fault", ["text", "split", "images"])
def test_a_point_without_its_record_holds_up_nothing(
    tracker: FrontierTracker,
    uri: str,
    synthetic: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    (bad, _), path = synthetic.make_point(0.5), tmp_path / "bad.parquet"
    if fault == "text":
        path.write_text("no record")
    elif fault == "split":
        write_record(synthetic.make_record(0.5, split="test"), path)
    else:
        write_record(synthetic.make_record(0.5, images=300), path)
    tracker.log_point(bad, path)
    log_point(tracker, synthetic.make_point(0.7))
    assert "An event can never be written" in caplog.text
    assert tracker.finish() == 0
    assert set(by_id(uri)) == {synthetic.make_point(0.7)[0].point_id}
    assert len(list((tmp_path / "spool" / "rejected").glob("*.json"))) == 1
