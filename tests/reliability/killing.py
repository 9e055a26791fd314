"""A tiny sweep on two raylets of this machine, and what kills one of its processes."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

from runtime_pruning.frontier.points import point_id, trial_key
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.prepare import preparation_key
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.search import opening_points
from runtime_pruning.sweeping.trial import trial_config
from runtime_pruning.tracking.rebuild import rebuild

ROOT = Path(__file__).parents[2]
Kind = Literal["driver", "trial", "env runner", "raylet", "MLflow server", "Train worker"]
KINDS: tuple[Kind, ...] = (
    "driver",
    "trial",
    "env runner",
    "raylet",
    "MLflow server",
    "Train worker",
)
TINY = (
    "trials=2",
    "controls=[dense, fixed-width]",
    "search.groups=[2]",
    "settings.rounds=2",
    "settings.episodes_per_round=250",
    "settings.finetune_images=64",
    "settings.calibration_batches=1",
    "settings.agent.images_per_runner=125",
    "settings.agent.warmup_episodes=125",
    "resources.trial.cpus=0.5",
    "resources.env_runner.cpus=0.3",
    "resources.control.cpus=0.5",
    "resources.prepare.cpus=0.5",
    "prepare.pretraining_epochs=3",
    "prepare.anywidth_epochs=3",
    "proof.points=0",
    "timing.points=0",
)
# What a process of a kind is called by Ray.
_TITLES: dict[Kind, str] = {
    "trial": "ray::ImplicitFunc",
    "env runner": "EnvRunner",
    "Train worker": "ray::RayTrainWorker",
}
SWEEP = "killed"


class Point(NamedTuple):
    """What a point is, whichever run it came from."""

    trial_key: str
    index: int
    point_id: str


@dataclass
class Killed:
    """What became of a sweep of which a process was killed.

    Attributes:
        kind: of the process.
        after_s: seconds from the sweep's start.
        killed: whether such a process was there to be killed.
        starts: of the sweep until it had ended well.
        lost, doubled: points, against an undisturbed run.
        seconds: from the first start to the last end.
    """

    kind: Kind
    after_s: float
    killed: bool
    starts: int
    lost: int
    doubled: int
    seconds: float


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class TwoRaylets:
    """Two raylets on this machine, of one CPU each; the second one may die and come again.

    Args:
        folder: short, since Ray puts sockets below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.address = f"127.0.0.1:{self._port}"

    def start_head(self) -> None:
        """Start the head, with its own raylet."""
        self._ray("head", "--head", "--port", str(self._port), "--include-dashboard", "false")

    def start_node(self) -> None:
        """Start the second node."""
        self._ray("node", "--address", self.address)

    def _ray(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
        command += ["--num-cpus", "1", "--temp-dir", str(self._folder / name)]
        command += ["--object-store-memory", "100000000"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, name: str = "") -> list[int]:
        """Return the processes that name a node's folder on their command line, or descend."""
        lines = command_lines()
        own = {pid for pid, line in lines.items() if f"{self._folder}/{name}" in line}
        return [pid for pid in lines if own.intersection([pid, *ancestors(pid)])]

    def raylet(self, name: str) -> list[int]:
        """Return a node's raylet."""
        lines = command_lines()
        return [pid for pid in self.processes(name) if "raylet/raylet" in lines.get(pid, "")]

    def stop(self) -> None:
        """End every process of both nodes."""
        for pid in self.processes():
            kill(pid)
        shutil.rmtree(self._folder, ignore_errors=True)


def command_lines() -> dict[int, str]:
    """Return what each process of the machine was started as, or calls itself."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if line:  # a zombie has none
                found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def ancestors(pid: int) -> Iterator[int]:
    """Yield a process's parent, its parent's parent, and so on."""
    while pid > 1:
        try:
            # Behind the name, which may have spaces: state, parent.
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        pid = int(status[1])
        yield pid


def kill(pid: int) -> bool:
    """Send SIGKILL; return whether the process was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def environment(**more: str) -> dict[str, str]:
    """Return our environment without another sweep's variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RUNTIME_PRUNING_"))}
    return {**kept, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", **more}


@dataclass
class Stage:
    """Where sweeps run: a cluster, results, and perhaps a server of MLflow."""

    cluster: TwoRaylets
    results: Path
    log: IO[str]
    changes: tuple[str, ...] = ()
    server: "subprocess.Popen[str] | None" = None
    port: int = 0

    @property
    def uri(self) -> str:
        """Where the sweep's points are read from."""
        return f"sqlite:///{self.results}/mlflow.db"

    def start_server(self) -> None:
        """Start MLflow's server on the store, and wait until it answers."""
        self.port = self.port or free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.uri]
        command += ["--artifacts-destination", str(self.results / "artifacts"), "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.server = subprocess.Popen(
            command,
            env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until = time.monotonic() + 300
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.5)
        raise TimeoutError("MLflow's server does not answer.")

    def stop_server(self) -> None:
        """End the server and its workers."""
        if self.server is not None:
            own = self.server.pid
            for pid in command_lines():
                if own in ancestors(pid):
                    kill(pid)
            self.server.kill()
            self.server.wait()

    def start_sweep(self) -> "subprocess.Popen[str]":
        """Start the sweep, for the first time or again."""
        tracked = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}"} if self.server else {}
        changes = [part for each in (*TINY, *self.changes) for part in ("--set", each)]
        own = environment(
            RAY_ADDRESS=self.cluster.address, RUNTIME_PRUNING_RESULTS=str(self.results), **tracked
        )
        command = [sys.executable, "sweeps/frontier.py", "--preset", "digits", *changes]
        return subprocess.Popen(
            [*command, "--sweep-id", SWEEP],
            cwd=ROOT,
            env=own,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def victims(self, kind: Kind, driver: "subprocess.Popen[str]") -> list[int]:
        """Return the processes of a kind that are there now."""
        if kind == "driver":
            return [driver.pid] if driver.poll() is None else []
        if kind == "MLflow server":
            return [] if self.server is None else [self.server.pid]
        if kind == "raylet":
            return self.cluster.raylet("node")
        lines, title = command_lines(), _TITLES[kind]
        return [pid for pid in self.cluster.processes() if title in lines.get(pid, "")]

    def heal(self, kind: Kind) -> None:
        """Have again what was killed and does not come back by itself."""
        if kind == "raylet" and not self.cluster.raylet("node"):
            self.cluster.start_node()
        if kind == "MLflow server":
            self.stop_server()
            self.start_server()

    def points(self) -> list[Point]:
        """Return the sweep's points, each as often as MLflow holds it."""
        return [
            Point(each.point.trial_key, each.point.index, each.point.point_id)
            for each in rebuild(self.uri, SWEEP)
        ]


@contextlib.contextmanager
def stage(
    results: Path, log: Path, *, prepared: Path | None = None, changes: tuple[str, ...] = ()
) -> Iterator[Stage]:
    """Yield a stage with two raylets.

    Args:
        results: of this stage's sweeps.
        log: gets what everything prints.
        prepared: cache of prepared networks to begin with; None trains.
        changes: to the sweep, behind `TINY`.
    """
    results.mkdir(parents=True)
    if prepared is not None:
        shutil.copytree(prepared, results / "prepared")
    folder = Path(tempfile.mkdtemp(prefix="rk-", dir="/tmp"))  # Ray's sockets need short paths
    cluster = TwoRaylets(folder)
    with log.open("a") as file:
        made = Stage(cluster, results, file, changes)
        try:
            cluster.start_head()
            cluster.start_node()
            yield made
        finally:
            made.stop_server()
            cluster.stop()


def foretold(changes: tuple[str, ...] = ()) -> list[Point]:
    """Return the points that a sweep must have, where no trial is suggested by earlier ones."""
    sweep = load_preset("digits", ROOT / "sweeps" / "presets", [*TINY, *changes])
    assert sweep.trials <= len(sweep.group_counts)  # the opening points
    key, groups = preparation_key(check_sweep(sweep)), {"groups": sweep.group_counts[-1]}
    counts = {"dense": 1, "fixed-width": int(groups["groups"])}
    expected = [
        (trial_config(sweep, name, groups, key), index)
        for name in sweep.controls
        for index in range(counts[name])
    ]
    expected += [
        (trial_config(sweep, sweep.method, params, key), index)
        for params in opening_points(sweep)[: sweep.trials]
        for index in range(int(sweep.settings["rounds"]))
    ]
    return [
        Point(trial_key(config), index, point_id(SWEEP, trial_key(config), index))
        for config, index in expected
    ]


def undisturbed(results: Path, log: Path) -> tuple[list[Point], float]:
    """Return the points of a sweep that nothing happens to, and how long it took."""
    with stage(results, log) as made:
        started = time.monotonic()
        code = made.start_sweep().wait()
        assert code == 0, log.read_text()[-3000:]
        return made.points(), time.monotonic() - started


def killed(
    made: Stage, kind: Kind, after_s: float, expected: list[Point], *, starts: int = 6
) -> Killed:
    """Run the sweep, kill one process of it, and start it again until it has ended.

    Args:
        made: with nothing of the sweep yet.
        kind: of the process.
        after_s: seconds after the start; if there is none of the kind then, as soon as there is.
        expected: the points of an undisturbed run.
        starts: at most.

    Raises:
        RuntimeError: the sweep has not ended well after so many starts.
    """
    if kind == "MLflow server":
        made.start_server()
    began = time.monotonic()
    driver, done, at = made.start_sweep(), False, 0.0
    while driver.poll() is None and not done:
        if time.monotonic() - began >= after_s:
            found = made.victims(kind, driver)
            done = bool(found) and kill(random.Random(after_s).choice(found))
            at = time.monotonic() - began
        time.sleep(0.2)
    code, count = driver.wait(), 1
    # What a dead server did not hear of waits for the next start.
    while code != 0 or (kind == "MLflow server" and count == 1):
        if count == starts:
            raise RuntimeError(f"{kind} at {at:.1f} s: exit code {code} after {starts} starts.")
        made.heal(kind)
        code, count = made.start_sweep().wait(), count + 1
    points = made.points()
    return Killed(
        kind=kind,
        after_s=round(at or after_s, 1),
        killed=done,
        starts=count,
        lost=len(set(expected) - set(points)) + len(set(points) - set(expected)),
        doubled=len(points) - len(set(points)),
        seconds=round(time.monotonic() - began, 1),
    )


def shares(seed: int, count: int) -> Mapping[int, float]:
    """Return for each run the share of an undisturbed run's time after which it is disturbed."""
    rng = random.Random(seed)
    return {number: rng.uniform(0.1, 0.95) for number in range(count)}
