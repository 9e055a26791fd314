"""Commands that look at results: what they never create, write over, or print links to."""

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from runtime_pruning.cli import main
from runtime_pruning.frontier import write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


@pytest.fixture(scope="module")
def stored_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A results folder with a sweep of one point, and the sweep's id."""
    path = Path(__file__).parents[1] / "frontier" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("synthetic", path)
    assert spec is not None
    assert spec.loader is not None
    synthetic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synthetic)
    results = tmp_path_factory.mktemp("results")
    tracker = FrontierTracker(f"sqlite:///{results}/mlflow.db", "frontier", "s1", results / "spool")
    tracker.start_sweep({})
    point, record = synthetic.make_point(0.3, penalty=0.05)
    write_record(record, results / "record.parquet")
    tracker.log_point(point, results / "record.parquet")
    tracker.finish("FINISHED")
    return results, point.sweep_id


@pytest.mark.parametrize(
    "command",
    [["report", "x"], ["ui"], ["explain", "x", "--out", "o"], ["export", "0" * 16, "--out", "o"]],
)
def test_a_misspelt_folder_is_refused_and_not_created(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--results", str(tmp_path / "reslts")]) == 2
    told = capsys.readouterr().err
    assert f"No sweep has left results in '{tmp_path}/reslts'" in told
    assert os.listdir(tmp_path) == []


def test_ui_says_that_a_port_is_taken(
    stored_sweep: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        arguments = ["--results", str(stored_sweep[0])]
        assert main(["ui", "--port", str(port), *arguments]) == 2
    told = capsys.readouterr()
    assert f"Port {port} of 127.0.0.1 cannot be listened at" in told.err
    assert "http" not in told.out


def test_a_report_lies_in_a_folder_of_its_own_by_default(
    stored_sweep: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, sweep_id = stored_sweep
    monkeypatch.chdir(tmp_path)
    assert main(["report", sweep_id, "--results", str(results)]) == 0
    assert os.listdir(tmp_path) == [f"frontier-{sweep_id}"]
    assert (tmp_path / f"frontier-{sweep_id}" / "frontier.html").is_file()


def test_results_that_may_not_be_written_to_are_read(
    stored_sweep: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, sweep_id = stored_sweep
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    # Who runs tests as root may write everywhere: the system is made to say otherwise.
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    assert main(["report", sweep_id, "--results", str(results), "--out", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before
