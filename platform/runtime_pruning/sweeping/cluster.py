"""Where a sweep runs: one machine, a cluster, or a submitted job."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime_pruning.errors import ConfigError, UserError
from runtime_pruning.places import Place, PlaceError
from runtime_pruning.plugins import PLUGINS_ENV
from runtime_pruning.resources import Request
from runtime_pruning.sweeping.places import JOB_CONFIG, RESULTS_VARIABLE

# Set where an autoscaler starts nodes on demand; Ray itself does not tell what may still come.
GROWS_VARIABLE = "RUNTIME_PRUNING_CLUSTER_GROWS"
# Handed on to the workers where the driver has them.
_PASSED_ON = (
    "RUNTIME_PRUNING_DATA",
    "RUNTIME_PRUNING_WEIGHTS",
    "RUNTIME_PRUNING_CACHE",
    PLUGINS_ENV,
)


def start_ray(py_modules: Sequence[Path]) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine.

    Args:
        py_modules: package folders and module files that the workers import, shipped by Ray.

    Raises:
        UserError: nothing answers at ``RAY_ADDRESS``.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    refuse_dead_address(address)
    if address == "local":
        # Else Ray writes a token to the home folder, and later clusters ask everyone for it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        _keep_workers()
    job = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("runtime_env") or {}
    if "py_modules" in job:
        # Else Ray refuses a driver that names modules too; both are in what follows.
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    ray.init(
        address=address,
        runtime_env=runtime_environment(py_modules, os.environ, job),
        log_to_driver=os.environ.get("RUNTIME_PRUNING_WORKER_LOGS") == "1",
        **({"include_dashboard": False} if address == "local" else {}),
    )
    end_on_sigterm()


def runtime_environment(
    py_modules: Sequence[Path], variables: Mapping[str, str], job: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what this driver adds to the environment that its job's workers run in.

    What the user gave to ``ray job submit`` stays: Ray merges it with this key by key. Variables
    that the job sets are left out here, where Ray would refuse to have them twice; of modules, the
    one key that both name, the user's come behind ours.

    Args:
        py_modules: package folders and module files of ours, and of plugins.
        variables: of this process.
        job: the submitted job's own runtime environment; empty outside a job.
    """
    set_by_job = job.get("env_vars") or {}
    return {
        "py_modules": [*(str(path) for path in py_modules), *(job.get("py_modules") or ())],
        "env_vars": {
            name: variables[name]
            for name in _PASSED_ON
            if name in variables and name not in set_by_job
        },
    }


def _keep_workers() -> None:
    """Have the Ray that starts next on this machine start fewer processes, each of which imports.

    A worker takes 4 to 6 CPU-seconds to import torch, Ray and us. Ray ends idle ones after a
    second, so that those of the controls are gone when the front's points are tried; and it starts
    one for each CPU before it knows the packages that ours must find, which none of ours can use.
    """
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(24 * 3600 * 1000))
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


def end_on_sigterm() -> None:
    """Treat SIGTERM as SIGINT: Tune ends cleanly on that only, and `ray job stop` sends SIGTERM."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


@contextmanager
def sigint_given_back() -> Iterator[None]:
    """Restore the handler of SIGINT afterwards: Tune leaves one that swallows the next signal."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set a handler
            signal.signal(signal.SIGINT, before)


def refuse_dead_address(address: str, timeout_s: float = 5.0) -> None:
    """Fail at once where Ray would wait for minutes: nothing listens at ``address``.

    Raises:
        UserError: no connection within ``timeout_s`` seconds.
    """
    if address in ("local", "auto"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is None or parts.port is None:
        return
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=timeout_s).close()
    except OSError as error:
        raise UserError(
            f"`RAY_ADDRESS` must name a running Ray head, but nothing answers at {address!r}."
        ) from error


def refuse_what_never_fits(
    what: str,
    processes: Sequence[Request],
    nodes: Sequence[dict[str, float]],
    *,
    grows: bool = False,
) -> None:
    """Refuse what the cluster can never hold, instead of leaving it pending for ever.

    Args:
        what: asks, in the singular, for the message: ``"trial"``.
        processes: what each of its processes asks for.
        nodes: resources of each node: ``{"CPU": 8.0, "GPU": 1.0}``.
        grows: an autoscaler may start other nodes: say what is waited for, and refuse nothing.

    Raises:
        ConfigError: the message shows the arithmetic.
    """
    for kind, asked in _asked(processes).items():
        there = [node.get(kind, 0.0) for node in nodes]
        if max(asked) > max(there, default=0.0) or sum(asked) > sum(there):
            parts = " + ".join(f"{each:g}" for each in asked if each)
            lacking = (
                f"its {len(processes)} processes ask for {parts} = {sum(asked):g} {kind}; the "
                f"largest node has {max(there, default=0.0):g}, all nodes {sum(there):g}."
            )
            if not grows:
                raise ConfigError(
                    f"A {what} must fit the cluster, but {lacking} Where an autoscaler starts "
                    f"nodes on demand, set {GROWS_VARIABLE}=1."
                )
            print(f"A {what} waits until the cluster has grown: {lacking}", flush=True)


def most_at_once(processes: Sequence[Request], nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many jobs of these processes all nodes together hold, one at least."""
    room = [
        sum(node.get(kind, 0.0) for node in nodes) // sum(asked)
        for kind, asked in _asked(processes).items()
        if sum(asked)
    ]
    return max(1, int(min(room)))


def _asked(processes: Sequence[Request]) -> dict[str, list[float]]:
    """Return what each process asks for, by kind."""
    return {"CPU": [each.cpus for each in processes], "GPU": [each.gpus for each in processes]}


def refuse_unshared(results: Place) -> None:
    """Refuse a place that a node which runs tasks cannot use; its trials' points would be lost.

    Raises:
        ConfigError: names the nodes.
        PlaceError: this machine cannot use it either.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    here = ray.get_runtime_context().get_node_id()
    probe, content = f".probe-{uuid4().hex}", uuid4().hex
    results.write_text(probe, content)
    try:
        seen = {
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": ray.remote(num_cpus=0)(
                _sees
            )
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(results, probe, content)
            for node in nodes
            if node["NodeID"] != here
        }
        blind = [name for name, found in seen.items() if not ray.get(found)]
    finally:
        results.delete(probe)
    if blind:
        raise ConfigError(
            "Results must go to a folder that all nodes see and may write to, or to an address "
            f"that all nodes may use, but {', '.join(blind)} cannot use {results.address!r}: name "
            f"another with --results or {RESULTS_VARIABLE}."
        )


def _sees(results: Place, probe: str, content: str) -> bool:
    """Whether this node reads what another has written, and may write beside it."""
    mine = f"{probe}-{uuid4().hex}"
    try:
        if results.read_text(probe) != content:
            return False
        results.write_text(mine, content)
        results.delete(mine)
    except PlaceError:
        return False
    return True


def may_grow() -> bool:
    """Whether whoever set up the cluster says that an autoscaler starts nodes on demand."""
    return os.environ.get(GROWS_VARIABLE) == "1"


def alive_nodes() -> list[dict[str, float]]:
    """Return the resources of each living node of the cluster that we are connected to."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
