"""A driver that is stopped or killed in the middle of a sweep: the same command ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from runtime_pruning.tracking.rebuild import rebuild

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


class Stopped(NamedTuple):
    """How a driver that got a signal ended."""

    code: int
    printed: str


def signal_after(
    arguments: list[str],
    results: Path,
    environment: dict[str, str],
    *,
    points: int,
    number: signal.Signals,
) -> Stopped:
    """Start a sweep, and signal its driver alone when it has printed that many points."""
    own = {"RUNTIME_PRUNING_RESULTS": str(results), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "sweeps/frontier.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        printed = []
        for line in driver.stdout:
            printed.append(line)
            if (
                "of dense MACs" in line
                and sum("of dense MACs" in each for each in printed) == points
            ):
                driver.send_signal(number)
                if number == signal.SIGKILL:
                    break
    return Stopped(driver.wait(), "".join(printed))


def sweep_status(results: Path) -> str:
    """Return how MLflow says that the sweep ended."""
    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    experiment = client.get_experiment_by_name("frontier")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`frontier.kind` = 'sweep'")
    assert len(runs) == 1
    return str(runs[0].info.status)


def test_a_stopped_and_a_killed_sweep_go_on_where_they_were(
    small_arguments: list[str],
    frontier: Callable[..., CompletedProcess[str]],
    one_cpu: dict[str, str],
    tmp_path: Path,
) -> None:
    arguments = [*small_arguments, "--trials", "3", "--set", "resources.concurrent=1"]
    arguments += ["--set", "proof.points=0", "--set", "timing.points=0", "--sweep-id", "stopped"]
    # Five controls and the first trial are done, two trials are not.
    stopped = signal_after(arguments, tmp_path, one_cpu, points=6, number=signal.SIGTERM)
    assert stopped.code == 1, stopped.printed
    assert "--sweep-id stopped" in stopped.printed
    assert sweep_status(tmp_path) == "KILLED"
    killed = signal_after(arguments, tmp_path, one_cpu, points=7, number=signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    done = frontier(arguments, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 operating points in" in done.stdout
    stored = rebuild(f"sqlite:///{tmp_path}/mlflow.db", "stopped")
    assert len({each.point.point_id for each in stored}) == len(stored) == 8
    assert len({each.point.trial_key for each in stored}) == 5
    assert len(list((tmp_path / "stopped" / "trials").glob("trial-*"))) == 3
    assert sweep_status(tmp_path) == "FINISHED"


def test_a_sweep_that_is_stopped_while_it_prepares_says_so_in_a_sentence(
    small_arguments: list[str], one_cpu: dict[str, str], tmp_path: Path
) -> None:
    own = {"RUNTIME_PRUNING_RESULTS": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    arguments = [*small_arguments, "--set", "prepare.pretraining_epochs=999"]
    with subprocess.Popen(
        [sys.executable, "sweeps/frontier.py", *arguments, "--sweep-id", "early"],
        cwd=ROOT,
        env={**os.environ, **one_cpu, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        printed = b""
        while b"Training, dense:" not in printed:
            part = os.read(driver.stdout.fileno(), 4096)
            assert part, printed
            printed += part
        driver.send_signal(signal.SIGTERM)
        printed += driver.stdout.read()
    assert driver.wait() == 130, printed
    told = b"Interrupted. The same command with --sweep-id early goes on from here."
    assert told in printed
    assert b"Traceback" not in printed
