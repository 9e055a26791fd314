"""`ray job submit` to a running head whose Python has the dependencies and nothing of ours."""

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_pruning.tracking.rebuild import rebuild

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A Python that finds the dependencies, but not this project's editable installation."""
    folder = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path that a .pth file names has its own .pth files left unread: no editable installation.
    link = folder / "lib" / version / "site-packages" / "dependencies.pth"
    link.write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture
def head(bare_python: Path, tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A running head: the address for jobs, and the environment to submit from."""
    port, dashboard, agent = free_ports(3)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))},
        "PATH": f"{bare_python.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RUNTIME_PRUNING_RESULTS": str(tmp_path / "results"),
    }
    # Ray's sockets must have short paths.
    sessions = Path("/tmp") / f"rp-{port}"
    ray = [str(bare_python), "-m", "ray.scripts.scripts"]
    start = [*ray, "start", "--head", "--port", str(port), "--num-cpus", "2"]
    start += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
    start += ["--dashboard-agent-listen-port", str(agent), "--temp-dir", str(sessions)]
    started = subprocess.run(start, env=environment, capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
        )
        for pid in re.findall(rf"^ *(\d+) .*{sessions}", listed.stdout, re.M):
            subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
        shutil.rmtree(sessions, ignore_errors=True)


def test_a_submitted_sweep_runs_with_nothing_installed_but_the_dependencies(
    head: tuple[str, dict[str, str]],
    bare_python: Path,
    small_arguments: list[str],
    tmp_path: Path,
) -> None:
    address, environment = head
    missing = subprocess.run(
        [bare_python, "-c", "import torch, ray, runtime_pruning"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'runtime_pruning'" in missing.stderr
    submit = [bare_python, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."]
    submit += ["--address", address, "--", "python", "sweeps/frontier.py", *small_arguments]
    done = subprocess.run(
        [*submit, "--sweep-id", "submitted"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 operating points in" in done.stdout
    results = Path(environment["RUNTIME_PRUNING_RESULTS"])
    assert len(rebuild(f"sqlite:///{results}/mlflow.db", "submitted")) == 7
