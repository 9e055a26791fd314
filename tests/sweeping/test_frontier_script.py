"""The main job as a user runs it: a small sweep, its ledger, and what is left of it."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from mlflow import MlflowClient

from runtime_pruning import cli
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import load
from runtime_pruning.deploy import load_bundle, read_bundle
from runtime_pruning.deploy.evaluation import evaluate_bundle
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import read_record
from runtime_pruning.frontier.timings import read_timings
from runtime_pruning.methods.recording import measure
from runtime_pruning.tracking.rebuild import (
    rebuild,
    rebuild_proofs,
    rebuild_test,
    rebuild_timings,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


Sweep = tuple[Path, str]


KINDS = {"sweep": 1, "trial": 4, "point": 7}


Frontier = Callable[..., CompletedProcess[str]]


def point_folders(results: Path) -> list[Path]:
    """Return the folders of all points of the sweep."""
    return sorted(path.parent for path in (results / "small").rglob("point.json"))


def point_of(folder: Path) -> OperatingPoint:
    return OperatingPoint.from_json((folder / "point.json").read_text())


def folder_of(results: Path, point_id: str) -> Path:
    (folder,) = [f for f in point_folders(results) if point_of(f).point_id == point_id]
    return folder


def test_it_prints_a_line_per_point_and_the_frontier(small_sweep: Sweep) -> None:
    results, printed = small_sweep
    lines = re.findall(r"^ +\d+ +\d+:\d\d +[\d.]+% at +[\d.]+% of dense MACs", printed, re.M)
    # Two trials with a round each, four fixed widths, the dense network.
    assert len(lines) == len(point_folders(results)) == 7
    assert "7 operating points in" in printed
    assert {path.suffix for path in (results / "small").glob("frontier.*")} == {
        ".html",
        ".md",
        ".png",
    }


def test_reported_points_are_timed_and_the_timings_come_back_from_mlflow(
    small_sweep: Sweep,
) -> None:
    results, printed = small_sweep
    written = {
        point_of(folder).point_id: read_timings(folder / "timings.json")
        for folder in point_folders(results)
        if (folder / "timings.json").exists()
    }
    assert [len(timings) for timings in written.values()] == [2, 2]
    assert {timing.batch for timings in written.values() for timing in timings} == {1, 8}
    assert rebuild_timings(f"sqlite:///{results}/mlflow.db", "small") == written
    assert re.search(r"batch 1 +batch 8 +method", printed)


def test_every_group_count_is_tried(small_sweep: Sweep) -> None:
    points = [point_of(folder) for folder in point_folders(small_sweep[0])]
    assert {point.groups for point in points if point.method == "rnp"} == {2, 4}


def test_the_frontier_comes_back_from_mlflow_alone(small_sweep: Sweep) -> None:
    results, _ = small_sweep
    expected = {point.point_id: point for point in map(point_of, point_folders(results))}
    stored = rebuild(f"sqlite:///{results}/mlflow.db", "small")
    assert {each.point.point_id: each.point for each in stored} == expected


def test_executed_macs_are_the_analytic_ones(small_sweep: Sweep) -> None:
    for point in map(point_of, point_folders(small_sweep[0])):
        assert point.executed_macs_per_image == pytest.approx(point.macs_per_image, rel=1e-12)


def test_dense_and_widest_cost_exactly_the_dense_network(small_sweep: Sweep) -> None:
    points = [point_of(folder) for folder in point_folders(small_sweep[0])]
    (dense,) = [point for point in points if point.method == "dense"]
    widest = max((p for p in points if p.method == "fixed-width"), key=lambda p: p.macs_fraction)
    assert dense.executed_macs_per_image == widest.executed_macs_per_image == dense.dense_macs


def test_a_bundle_repeats_its_record(small_sweep: Sweep) -> None:
    folders = [f for f in point_folders(small_sweep[0]) if point_of(f).method == "rnp"]
    bundle, record = read_bundle(folders[0] / "bundle"), read_record(folders[0] / "record.parquet")
    again, _ = measure(bundle.network, bundle.policy, load("digits").validation, 256)
    assert again.predictions_N.tolist() == record.predictions_N.tolist()
    assert again.channels_NL.tolist() == record.channels_NL.tolist()
    assert again.executed_macs_N.tolist() == record.executed_macs_N.tolist()
    assert dense_macs(bundle.network) == point_of(folders[0]).dense_macs


def test_the_test_split_is_read_for_the_front_and_the_dense_network_only(
    small_sweep: Sweep,
) -> None:
    results, _ = small_sweep
    with sqlite3.connect(results / "mlflow.db") as database:
        query = "select key, value, run_uuid from tags where key like 'frontier.%'"
        rows = database.execute(query).fetchall()
    tags: dict[str, dict[str, str]] = {}
    for key, value, run in rows:
        tags.setdefault(run, {})[key.removeprefix("frontier.")] = value
    points = [each for each in tags.values() if each["kind"] == "point"]
    tested = {each["point_id"] for each in points if each.get("tested") == "true"}
    front = {each["point_id"] for each in points if each["on_front"] == "true"}
    dense = {each["point_id"] for each in points if each["method"] == "dense"}
    assert front
    fixed = {each["point_id"] for each in points if each["method"] == "fixed-width"}
    assert tested == front | dense | fixed


def test_the_same_id_again_runs_and_logs_nothing_twice(
    small_sweep: Sweep, small_arguments: list[str], frontier: Frontier
) -> None:
    results, _ = small_sweep
    before = {folder: (folder / "point.json").stat().st_mtime for folder in point_folders(results)}
    done = frontier([*small_arguments, "--sweep-id", "small"], results)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 operating points in" in done.stdout
    assert {f: (f / "point.json").stat().st_mtime for f in point_folders(results)} == before
    assert len(rebuild(f"sqlite:///{results}/mlflow.db", "small")) == 7


def test_the_test_splits_frontier_is_drawn_from_mlflow_alone(
    small_sweep: Sweep, tmp_path: Path
) -> None:
    results = ["--results", str(small_sweep[0]), "--out", str(tmp_path)]
    assert cli.main(["report", "small", "--split", "test", *results]) == 0
    stored = rebuild_test(f"sqlite:///{small_sweep[0]}/mlflow.db", "small")
    assert {each.point.split for each in stored} == {"test"}
    assert all(each.point.accuracy == each.record.correct_N.mean() for each in stored)
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_a_point_is_exported_from_mlflow_alone(small_sweep: Sweep, tmp_path: Path) -> None:
    results, _ = small_sweep
    (point, *_) = [p for p in map(point_of, point_folders(results)) if p.method == "fixed-width"]
    arguments = ["--out", str(tmp_path / "bundle"), "--results", str(results)]
    assert cli.main(["export", point.point_id, *arguments]) == 0
    shipped = load_bundle(tmp_path / "bundle")
    assert shipped.card.stop.point_id == point.point_id
    siblings = [p for p in map(point_of, point_folders(results)) if p.trial_key == point.trial_key]
    assert {stop.point_id for stop in shipped.card.stops} == {p.point_id for p in siblings}
    validation = load("digits").validation
    found = evaluate_bundle(shipped, validation.images_NCHW[:], validation.labels_N.tolist())
    assert found.accuracy[1] == pytest.approx(point.accuracy, abs=1e-9)
    assert cli.main(["export", "0" * 16, "--out", str(tmp_path / "x"), *arguments[2:]]) == 2


def test_decisions_of_the_methods_best_points_are_tried(small_sweep: Sweep) -> None:
    results, printed = small_sweep
    uri = f"sqlite:///{results}/mlflow.db"
    stored = {each.point.point_id: each for each in rebuild(uri, "small")}
    proofs = rebuild_proofs(uri, "small", "validation")
    assert 1 <= len(proofs) <= 2
    assert {stored[point_id].point.method for point_id in proofs} == {"rnp"}
    for point_id, proof in proofs.items():
        point = stored[point_id].point
        # Equal executed MACs, decision network included, unless no two plans bracket them.
        assert proof.fixed.macs_per_image <= point.executed_macs_per_image * (1 + 1e-9)
        policy = read_bundle(folder_of(results, point_id) / "bundle").policy
        assert proof.shuffled.macs_per_image == pytest.approx(
            point.executed_macs_per_image - policy.macs_per_image
        )
    tested = {each.point.point_id for each in rebuild_test(uri, "small")}
    assert set(rebuild_proofs(uri, "small", "test")) == set(proofs) & tested
    verdicts = re.findall(r", validation: (dynamic|static); points over", printed)
    assert sorted(verdicts) == sorted(proof.verdict for proof in proofs.values())
    assert "| verdict |" in (results / "small" / "frontier.md").read_text()


def test_the_preparation_is_found_again(small_sweep: Sweep) -> None:
    for state in ("dense", "anywidth"):
        (prepared,) = (small_sweep[0] / "prepared" / state).iterdir()
        assert json.loads((prepared / "manifest.json").read_text())["backbone"] == "digits-cnn"


def test_each_trial_and_the_sweep_say_where_they_came_from_and_how_they_ended(
    small_sweep: Sweep,
) -> None:
    client = MlflowClient(f"sqlite:///{small_sweep[0]}/mlflow.db")
    experiment = client.get_experiment_by_name("frontier")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    kinds = {kind: [r for r in runs if r.data.tags["frontier.kind"] == kind] for kind in KINDS}
    assert {kind: len(found) for kind, found in kinds.items()} == KINDS
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time
    (sweep,) = kinds["sweep"]
    params = sweep.data.params
    assert params["prepare.anywidth_epochs"] == params["prepare.pretraining_epochs"] == "2"
    assert params["resources.trial.cpus"] == "1.0"
    assert float(params["preparation.dense.epochs"]) == 2.0
    assert float(params["preparation.network.epochs"]) == 4.0
    assert float(params["preparation.network.train_seconds"]) > 0
    assert params["code_version"] != "unknown"
    points = [point_of(folder) for folder in point_folders(small_sweep[0])]
    assert {point.code_version for point in points} == {params["code_version"]}
    epochs = {point.method: point.epochs for point in points}
    assert (epochs["dense"], epochs["fixed-width"]) == (2.0, 4.0)
    assert epochs["rnp"] > 4.0
    files = {file.path for file in client.list_artifacts(sweep.info.run_id)}
    assert files == {"frontier.html", "frontier.md", "frontier.png", "sweep.json"}


def test_explain_rebuilds_what_the_sweep_said(small_sweep: Sweep, tmp_path: Path) -> None:
    results, _ = small_sweep
    arguments = ["--results", str(results), "--out", str(tmp_path)]
    assert cli.main(["explain", "small", *arguments]) == 0
    point_ids = set(rebuild_proofs(f"sqlite:///{results}/mlflow.db", "small", "validation"))
    assert {folder.name for folder in tmp_path.iterdir()} == point_ids
    for point_id in point_ids:
        said = folder_of(results, point_id) / "dynamics" / "dynamics.json"
        assert (
            tmp_path / point_id / "validation" / "dynamics.json"
        ).read_text() == said.read_text()


def test_explain_measures_controls_that_a_point_lacks(
    small_sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = small_sweep
    points = [point_of(folder) for folder in point_folders(results)]
    narrow = min(points, key=lambda point: point.macs_fraction)
    assert narrow.method == "fixed-width"
    arguments = ["--point", narrow.point_id, "--results", str(results), "--out", str(tmp_path)]
    assert cli.main(["explain", "small", *arguments]) == 0
    assert f"{narrow.point_id}: static, 1 distinct plans" in capsys.readouterr().out
    facts = json.loads((tmp_path / narrow.point_id / "validation" / "dynamics.json").read_text())
    for control in ("shuffled", "random"):
        gain = facts["proof"][control]
        assert gain["value"] == 0
        assert -gain["low"] == gain["high"] <= 0.02  # images that were not drawn may differ
    assert facts["decisions"]["distinct_plans"] == 1
    assert cli.main(["explain", "small", *arguments, "--split", "test"]) == 2
    assert "has no" in capsys.readouterr().err
