"""`ray job submit` to two nodes whose Python has the dependencies and nothing of ours."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runtime_pruning.places import Place
from runtime_pruning.tracking.rebuild import rebuild

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
STRIPPED = ("RAY_", "PYTHONPATH", "RUNTIME_PRUNING_")
SMALL = (
    "trials=1",
    "controls=[dense]",
    "held_out_limit=12",
    "search.groups=[2]",
    "settings.rounds=1",
    "settings.episodes_per_round=16",
    "settings.finetune_images=32",
    "settings.finetune_batch=16",
    "settings.calibration_batches=1",
    "resources.env_runner.workers=0",
    "settings.agent.images_per_runner=16",
    "settings.agent.warmup_episodes=16",
    "prepare.pretraining_epochs=1",
    "prepare.anywidth_epochs=1",
    "prepare.batch_size=16",
    "proof.points=0",
    "timing.points=0",
)
PLUGIN = """
from theirs.widths import WIDTH
from torch import nn

from runtime_pruning import backbones


@backbones.register("small-of-mine")
def small(*, num_classes, image_shape):
    return nn.Sequential(
        nn.Conv2d(image_shape[0], WIDTH, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, num_classes),
    )
"""


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
def checkout(tmp_path: Path) -> Path:
    """A copy of what a checkout ships, with a backbone beside it that uses a package of the user's.

    The package lies elsewhere: the user gives it to the job as one of its own `py_modules`.
    """
    folder = tmp_path / "checkout"
    for name in ("platform", "envs", "sweeps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "my_backbones").mkdir()
    (folder / "my_backbones" / "small.py").write_text(PLUGIN)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").touch()
    (tmp_path / "theirs" / "widths.py").write_text("WIDTH = 16\n")
    return folder


class Cluster(NamedTuple):
    """A head that runs no task, and what starts a node that does.

    Attributes:
        address: for jobs.
        environment: to submit from.
        join: starts the node.
        node_folder: of the node's Ray.
    """

    address: str
    environment: dict[str, str]
    join: Callable[[], None]
    node_folder: Path


@pytest.fixture
def cluster(bare_python: Path) -> Iterator[Cluster]:
    port, dashboard, *agents = free_ports(4)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(STRIPPED)},
        "PATH": f"{bare_python.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
    }
    # Ray's sockets must have short paths. Nodes on one machine need a folder each: they would
    # delete each other's copies of the job's files.
    folders = [Path("/tmp") / f"rp-{port}-{node}" for node in ("head", "node")]

    def start(number: int, *arguments: str) -> None:
        command = [str(bare_python), "-m", "ray.scripts.scripts", "start", *arguments]
        command += ["--temp-dir", str(folders[number])]
        command += ["--dashboard-agent-listen-port", str(agents[number])]
        started = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert started.returncode == 0, started.stdout + started.stderr

    def join() -> None:
        start(1, "--address", f"127.0.0.1:{port}", "--num-cpus", "2")
        waited = subprocess.run(
            [bare_python, ROOT / "cluster" / "wait_for_nodes.py", "2"],
            env={**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"},
            capture_output=True,
            text=True,
        )
        assert waited.stdout.endswith("2 of 2 nodes have joined.\n"), waited.stderr

    try:
        shown = ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
        start(0, "--head", "--port", str(port), "--num-cpus", "0", *shown)
        yield Cluster(f"http://127.0.0.1:{dashboard}", environment, join, folders[1])
    finally:
        end_processes_of(f"/tmp/rp-{port}-")
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def end_processes_of(folder: str) -> None:
    """Kill what names one of our own session folders on its command line."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    for pid in re.findall(rf"^ *(\d+) .*{folder}", listed.stdout, re.M):
        subprocess.run(["kill", "-9", pid], check=False, capture_output=True)


def submitted(
    cluster: Cluster, checkout: Path, runtime_env: dict[str, object], *entrypoint: str
) -> "subprocess.Popen[str]":
    """Submit a job from a checkout; what is returned prints what the job prints."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
    command += ["--address", cluster.address, "--working-dir", "."]
    command += ["--runtime-env-json", json.dumps(runtime_env), "--", *entrypoint]
    return subprocess.Popen(
        command,
        cwd=checkout,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_sweep_with_data_and_plugins_runs_on_nodes_with_the_dependencies_only(
    cluster: Cluster,
    bare_python: Path,
    checkout: Path,
    write_photographs: Callable[..., Path],
    object_store: str,
    tmp_path: Path,
) -> None:
    """All that the nodes share is an S3 bucket."""
    missing = subprocess.run(
        [bare_python, "-c", "import ray, runtime_pruning"],
        cwd=tmp_path,
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    assert "No module named 'runtime_pruning'" in missing.stderr
    faces = [f"{part}/{name}" for part in ("train", "test") for name in ("female", "male")]
    photographs = write_photographs(tmp_path / "faces", dict.fromkeys(faces, 24))
    results = object_store.format("submitted-results")
    here = tmp_path / "runtime-pruning" / "s3-sweeps-submitted-results"  # on the head's disk
    runtime_env = {
        "env_vars": {
            "RUNTIME_PRUNING_DATA": str(photographs),
            "RUNTIME_PRUNING_RESULTS": results,
            "HOME": str(tmp_path),
            "RUNTIME_PRUNING_CLUSTER_GROWS": "1",
        },
        "py_modules": [str(tmp_path / "theirs")],
    }
    small = [part for each in SMALL for part in ("--set", each)]
    arguments = ["--preset", "faces", "--backbone", "small-of-mine", "--sweep-id", "submitted"]
    arguments += ["--plugin", "my_backbones.small", *small]
    # By its run bit.
    with submitted(cluster, checkout, runtime_env, "sweeps/frontier.py", *arguments) as job:
        assert job.stdout is not None
        printed = ""
        while "A trial waits until the cluster has grown" not in printed:
            line = job.stdout.readline()
            assert line, printed
            printed += line
        cluster.join()
        printed += job.stdout.read()
    assert job.returncode == 0, printed
    points = rebuild(f"sqlite:///{here}/mlflow.db", "submitted")
    assert {each.point.method for each in points} == {"rnp", "dense"}
    assert {each.point.backbone for each in points} == {"small-of-mine"}
    place = Place.at(results)
    kept = {"controls", "frontier.html", "frontier.png", "frontier.md", "trials"}
    kept |= {"sweep.json", "parts.json"}
    assert set((place / "submitted").names()) == kept
    assert (place / "prepared").names() == ["anywidth", "dense"]
    assert "secret" not in printed
    advice = f"RUNTIME_PRUNING_RESULTS={here} make ui, in a checkout on a machine that sees"
    assert advice in printed
    # The trial ran on the other node, with what was shipped there.
    modules = "session_*/runtime_resources/py_modules_files/*/*"
    shipped = {path.name for path in cluster.node_folder.glob(modules)}
    assert {"runtime_pruning", "pruning_envs", "my_backbones", "theirs"} <= shipped

    # The README's form, with nothing but it.
    with submitted(cluster, checkout, {}, "python", "sweeps/frontier.py", "--help") as plain:
        assert plain.stdout is not None
        printed = plain.stdout.read()
    assert plain.returncode == 0, printed
    assert "Sweep runtime pruning, and draw" in printed
