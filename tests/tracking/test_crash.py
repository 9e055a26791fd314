"""Writers that are killed in the middle, stores that two open at once, servers that are dead."""

import contextlib
import importlib.util
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import TimeoutError as TimeoutError_

from runtime_pruning.frontier import OperatingPoint, Record, write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild
from runtime_pruning.tracking.storage import StoreUnavailableError, open_store, resolve_uri

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

# A real process each; none shares a connection, since the store is opened by the children only.
FORK = multiprocessing.get_context("fork")


def write_sweep(
    uri: str, folder: Path, measured: list[tuple[OperatingPoint, Record]], sweep_id: str = "s1"
) -> None:
    """What a sweep's driver does from the start, started again or not."""
    tracker = FrontierTracker(uri, "frontier", sweep_id, folder / f"spool-{sweep_id}")
    tracker.start_sweep({"trials": len(measured)})
    for point, record in measured:
        path = folder / f"{sweep_id}-{point.point_id}.parquet"
        write_record(record, path)
        tracker.start_trial(point.trial_key, point.config)
        tracker.log_point(point, path)
        tracker.finish_trial(point.trial_key)
    assert tracker.finish() == 0


def die_at(method: str, words: str, after: bool) -> None:
    """Have this process killed at the first call of a client's method that speaks of ``words``."""
    original = getattr(MlflowClient, method)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        marked = words in repr((args[1:], kwargs))
        if marked and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if marked:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(MlflowClient, method, deadly)


def run_and_die(death: tuple[str, str, bool], *args: Any) -> None:
    die_at(*death)
    write_sweep(*args)


def run_in_child(target: Any, *args: Any) -> int | None:
    child = FORK.Process(target=target, args=args)
    child.start()
    child.join()
    return child.exitcode


def all_runs(uri: str) -> dict[str, list[Run]]:
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "frontier"]
    kinds: dict[str, list[Run]] = {"sweep": [], "trial": [], "point": []}
    for run in client.search_runs([experiment.experiment_id]):
        kinds[run.data.tags["frontier.kind"]].append(run)
    return kinds


def test_a_killed_writer_loses_and_repeats_nothing(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    sweep = [synthetic.make_point(fraction) for fraction in (0.3, 0.5, 0.7)]
    deaths = [
        ("create_run", "'frontier.kind': 'sweep'", True),  # a run with nothing in it
        ("create_run", "'frontier.kind': 'trial'", True),
        ("create_run", "'frontier.kind': 'point'", False),
        ("create_run", "'frontier.kind': 'point'", True),
        ("log_text", "point.json", False),  # a record, and no numbers
        ("log_batch", "key='accuracy'", False),
        ("log_batch", "key='accuracy'", True),  # all numbers, and no mark
        ("set_terminated", "FINISHED", True),  # marked, and still in the spool
        ("log_batch", "key='frontier.on_front'", False),
        ("log_artifact", "frontier.html", True),  # drawn, and the sweep still open
    ]
    for death in deaths:
        code = run_in_child(run_and_die, death, uri, tmp_path, sweep)
        assert code == -signal.SIGKILL, death
    assert run_in_child(write_sweep, uri, tmp_path, sweep) == 0

    runs = all_runs(uri)
    assert {kind: len(found) for kind, found in runs.items()} == {
        "sweep": 1,
        "trial": 3,
        "point": 3,
    }
    assert {run.info.status for found in runs.values() for run in found} == {"FINISHED"}
    assert rebuild(uri, "s1") == sorted(sweep, key=lambda m: m[0].trial_key)
    client = MlflowClient(uri)
    for run in runs["point"]:
        for name in run.data.metrics:
            assert len(client.get_metric_history(run.info.run_id, name)) == 1
    steps = [m.step for m in client.get_metric_history(runs["sweep"][0].info.run_id, "points_done")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 3


def test_a_killed_writers_point_is_replayed_without_being_logged_again(
    uri: str, tmp_path: Path, synthetic: ModuleType
) -> None:
    measured = synthetic.make_point(0.5)
    death = ("log_batch", "key='accuracy'", False)
    code = run_in_child(run_and_die, death, uri, tmp_path, [measured])
    assert code == -signal.SIGKILL
    assert rebuild(uri, "s1") == []
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    assert FrontierTracker(uri, "frontier", "s1", tmp_path / "spool-s1").replay() == 0
    assert rebuild(uri, "s1") == [measured]


def test_sweeps_that_start_together_make_one_store(tmp_path: Path, synthetic: ModuleType) -> None:
    uri = resolve_uri("sqlite:///fresh.db", tmp_path)
    measured = {name: [synthetic.make_point(0.5, sweep_id=name)] for name in ("s1", "s2", "s3")}
    children = [
        FORK.Process(target=write_sweep, args=(uri, tmp_path, points, name))
        for name, points in measured.items()
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    for name, points in measured.items():
        assert rebuild(uri, name) == points


def _browsing() -> ModuleType:
    path = Path(__file__).parents[1] / "frontier" / "browsing.py"
    spec = importlib.util.spec_from_file_location("browsing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


browsing = _browsing()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    return int(number)


@pytest.mark.slow
def test_a_dead_server_delays_but_loses_nothing(
    port: int, uri: str, tmp_path: Path, synthetic: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"http://127.0.0.1:{port}"
    with pytest.raises(StoreUnavailableError, match="No MLflow server answers"):
        open_store(address)
    tracker = FrontierTracker(address, "frontier", "s1", tmp_path / "spool", retry_after_s=60.0)
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "r.parquet")
    started = time.monotonic()
    tracker.start_sweep({})
    tracker.log_point(point, tmp_path / "r.parquet")
    assert tracker.finish() == 3
    assert time.monotonic() - started < 60  # MLflow itself would retry for four minutes
    assert f"kept in {tmp_path / 'spool'}" in caplog.text

    server = start_server(port, uri, tmp_path)
    try:
        assert tracker.replay() == 0
        assert rebuild(address, "s1") == [(point, record)]
        with browsing.chromium() as browser:
            look_at_the_page(browser, address, point)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def look_at_the_page(browser: Any, address: str, point: OperatingPoint) -> None:
    """From MLflow's first page to the frontier in two clicks, and to a point's own description."""
    visit = browsing.Visit(browser, address)
    page, context = visit.page, visit.page.context
    page.set_default_timeout(60_000)
    page.get_by_role("link", name="frontier", exact=True).first.click()
    page.wait_for_url("**/experiments/**")
    # MLflow's own greeting comes once in a browser's life, late, over everything.
    greeting = page.get_by_text("Got it")
    with contextlib.suppress(TimeoutError_):
        greeting.click(timeout=10_000)
    with context.expect_page() as opened:
        page.get_by_role("link", name="Frontier of s1").click()
    shown = opened.value
    frame = shown.frame_locator("iframe")
    frame.locator("#body button").first.click(timeout=60_000)
    assert point.point_id in frame.locator("#card").inner_text()
    link = str(frame.locator("#card a").get_attribute("href"))
    assert link.startswith(f"{address}/#/experiments/")
    shown.goto(link)
    # The run says what it is and what its numbers mean.
    shown.get_by_text("Executed MACs over the dense backbone's.").wait_for(timeout=60_000)
    assert shown.get_by_role("link", name="its record, one row per image").count() == 1
    errors = [line for line in visit.said if line.startswith("error") and "404" not in line]
    assert errors == []
    visit.close()


def start_server(port: int, uri: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start MLflow's server on this machine alone and wait until it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    options = ["--port", str(port), "--backend-store-uri", uri]
    server = subprocess.Popen(
        [*command, *options, "--artifacts-destination", str(folder / "served")],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return server
        except OSError:
            time.sleep(0.5)
    os.killpg(server.pid, signal.SIGKILL)
    raise TimeoutError("MLflow's server did not start in a minute.")


def test_a_full_spool_is_told_and_the_next_start_logs_what_it_could_not_keep(
    tmp_path: Path, synthetic: ModuleType, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of more than a byte are refused by the system, as they are where a disk is full."""
    measured = [synthetic.make_point(0.3 + 0.1 * number, seed=number) for number in range(2)]
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for (_, record), path in zip(measured, paths, strict=True):
        write_record(record, path)
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    tracker.start_sweep({})
    tracker.log_point(measured[0][0], paths[0])
    assert tracker.replay() == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        tracker.log_point(measured[1][0], paths[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "MLflow will lack a point, " in caplog.text
    assert "File too large" in caplog.text
    assert tracker.finish() == 1
    assert len(rebuild(uri, "s1")) == 1
    # What the driver does when it is started again: it finds all points on the disk.
    again = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    again.start_sweep({})
    for (point, _), path in zip(measured, paths, strict=True):
        again.log_point(point, path)
    assert again.finish() == 0
    assert len(rebuild(uri, "s1")) == 2
