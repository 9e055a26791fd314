"""From command-line arguments to a finished sweep."""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import yaml

from runtime_pruning.errors import ConfigError, InterruptedSweepError
from runtime_pruning.executor.native import library
from runtime_pruning.files import write_text
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.plugins import plugin_folders, use_plugins
from runtime_pruning.resources import Request
from runtime_pruning.sweeping.advice import where_to_look, without_password
from runtime_pruning.sweeping.arguments import Arguments
from runtime_pruning.sweeping.checks import Material, check_contract, check_sweep
from runtime_pruning.sweeping.cluster import (
    alive_nodes,
    may_grow,
    refuse_dead_address,
    refuse_unshared_folder,
    refuse_what_never_fits,
    start_ray,
)
from runtime_pruning.sweeping.cluster_training import prepare_on_cluster
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.driver import Sweep, use_tune_settings
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.places import in_submitted_job, results_root
from runtime_pruning.sweeping.prepare import Prepared
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.provenance import code_version
from runtime_pruning.tracking.mlflow_store import FrontierTracker, Status
from runtime_pruning.tracking.storage import open_store, resolve_uri

EXPERIMENT = "frontier"


def run_sweep(arguments: Arguments, *, py_modules: Sequence[Path], presets: Path) -> int:
    """Check, prepare, sweep and draw; return 0, or 1 if a trial failed for good.

    Raises:
        UserError: whatever cannot be used, before Ray starts.
    """
    started = time.monotonic()
    sweep = load_preset(arguments.preset, presets, _overrides(arguments))
    sweep = replace(sweep, plugins=(*sweep.plugins, *arguments.plugins))
    use_plugins(sweep.plugins)
    material = check_sweep(sweep, data_dir=arguments.data_dir, weights_dir=arguments.weights_dir)
    refuse_dead_address(os.environ.get("RAY_ADDRESS", "local"))
    for clause in check_contract(material):
        print(f"Unknown of the network, {clause.reason}: {clause.name}")
    results = results_root(arguments.results)
    sweep_id = arguments.sweep_id or new_sweep_id(arguments.preset)
    folder = open_folder(results, sweep_id, sweep)
    # Processes that open a fresh database together destroy it, so it is made here, alone.
    uri = resolve_uri(None, results)
    open_store(uri)
    shared = material.prepare_method(folder, uri, arguments.weights_dir)
    print(f"Sweep {sweep_id}: results in {folder}, MLflow at {without_password(uri)}")
    use_tune_settings()
    # Before hours of preparation: what Ray or the cluster cannot do.
    start_ray([*py_modules, *plugin_folders()])
    try:
        _check_cluster(material, results)
        prepared = prepare_on_cluster(material, results / "prepared")
        if arguments.prepare_only:
            print(f"Prepared {prepared.key} in {results / 'prepared'}.")
            return 0
        return _sweep(material, prepared, shared, sweep_id, folder, uri, started)
    except (KeyboardInterrupt, InterruptedSweepError):
        print(f"Interrupted. The same command with --sweep-id {sweep_id} goes on from here.")
        raise
    finally:
        ray.shutdown()


def _check_cluster(material: Material, results: Path) -> None:
    """Refuse what the cluster that Ray is connected to cannot hold, or not share."""
    resources, nodes = material.sweep.resources, alive_nodes()
    trial = resources.trial_processes(trains_agent=material.method.trains_agent)
    asked: dict[str, Sequence[Request]] = {
        "preparation": [resources.prepare] * resources.prepare.workers,
        "control": [resources.control],
        "trial": trial,
    }
    for what, processes in asked.items():
        refuse_what_never_fits(what, processes, nodes, grows=may_grow())
    refuse_unshared_folder(results)


def _sweep(
    material: Material,
    prepared: Prepared,
    shared: Any,
    sweep_id: str,
    folder: Path,
    uri: str,
    started: float,
) -> int:
    """Sweep and draw on the cluster that Ray is connected to; return the exit code."""
    pictures = Thumbnails(material.data.validation)
    tracker = FrontierTracker(
        uri, EXPERIMENT, sweep_id, folder / "spool", report_dir=folder, pictures=pictures
    )
    tracker.start_sweep(_params(material, prepared))
    ledger = Ledger(tracker, material.sweep.method)
    running = Sweep(
        material=material,
        prepared=prepared,
        sweep_id=sweep_id,
        folder=folder,
        ledger=ledger,
        shared=shared,
    )
    status: Status = "FAILED"
    try:
        running.run()
        status = "FAILED" if running.failures else "FINISHED"
    except (KeyboardInterrupt, InterruptedSweepError):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
    _conclude(ledger, tracker, time.monotonic() - started)
    looking = where_to_look(
        uri,
        folder.parent,
        tracker.view_path,
        usual_results=Path("results").resolve(),
        submitted=in_submitted_job(),
    )
    print(looking)
    return int(status != "FINISHED")


def open_folder(results: Path, sweep_id: str, sweep: SweepConfig) -> Path:
    """Return the sweep's folder, created on the first start.

    Raises:
        ConfigError: an id that cannot name a folder and an MLflow tag, or one that was started with
            other settings.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", sweep_id):
        raise ConfigError(
            f"A sweep id holds letters, digits, '.', '_' and '-' only, but got {sweep_id!r}."
        )
    folder = results / sweep_id
    folder.mkdir(parents=True, exist_ok=True)
    settings, path = json.loads(json.dumps(asdict(sweep))), folder / "sweep.json"
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n")
    started = json.loads(path.read_text())
    for name, value in settings.items():
        if started.get(name) != value:
            raise ConfigError(
                f"Sweep {sweep_id!r} was started with {name}={started.get(name)!r} and goes on "
                f"with that only, but got {value!r}; choose another --sweep-id."
            )
    return folder


def new_sweep_id(preset: str) -> str:
    """Return a new id: the preset's name and the time."""
    return f"{Path(preset).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _overrides(arguments: Arguments) -> list[str]:
    """Return the command line's changes to the preset, as assignments."""
    named = {name: getattr(arguments, name) for name in ("backbone", "dataset", "trials", "seed")}
    given = [
        f"{name}={yaml.safe_dump(value).splitlines()[0]}"
        for name, value in named.items()
        if value is not None
    ]
    members = [f"settings.members={[*arguments.members]}"] if arguments.members else []
    return [*arguments.overrides, *given, *members]


def _params(material: Material, prepared: Prepared) -> dict[str, Any]:
    """Return what the sweep's run in MLflow says of it: where all of its points came from."""
    sweep: SweepConfig = material.sweep
    return {
        **asdict(sweep),
        "search": {name: str(dimension) for name, dimension in sweep.search.items()},
        "prepared": prepared.key,
        "preparation": {
            "dense": asdict(prepared.dense_effort),
            "network": asdict(prepared.network_effort),
        },
        "code_version": code_version(),
        "kernels": library.description(),
    }


def _conclude(ledger: Ledger, tracker: FrontierTracker, seconds: float) -> None:
    """Print the frontier, and where its page lies."""
    print(f"\n{len(ledger)} operating points in {seconds / 60:.1f} minutes. The frontier:\n")
    print(ledger.table())
    if tracker.report is not None:
        print(f"\nThe page: {tracker.report.page}")
