"""From command-line arguments to a finished sweep."""

import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import yaml

from runtime_pruning.errors import ConfigError, InterruptedSweepError, UserError
from runtime_pruning.executor.native import library
from runtime_pruning.files import locked
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.places import Mirror, Place
from runtime_pruning.plugins import plugin_folders, use_plugins
from runtime_pruning.resources import Request
from runtime_pruning.sweeping.advice import where_to_look, without_password
from runtime_pruning.sweeping.arguments import Arguments
from runtime_pruning.sweeping.checks import Material, check_contract, check_sweep
from runtime_pruning.sweeping.cluster import (
    alive_nodes,
    may_grow,
    refuse_dead_address,
    refuse_unshared,
    refuse_what_never_fits,
    start_ray,
)
from runtime_pruning.sweeping.cluster_training import prepare_on_cluster
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.driver import Sweep
from runtime_pruning.sweeping.exam import SETTINGS, examined
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.parts import Parts
from runtime_pruning.sweeping.places import in_submitted_job, results_place, results_root
from runtime_pruning.sweeping.prepare import Prepared, held
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.provenance import code_version
from runtime_pruning.sweeping.tuning import use_tune_settings
from runtime_pruning.tracking.mlflow_store import FrontierTracker, Status
from runtime_pruning.tracking.runs import flat
from runtime_pruning.tracking.storage import open_store, resolve_uri

EXPERIMENT = "frontier"
_MAY_CHANGE = ("resources", "exam")  # of the settings of a sweep that goes on


def run_sweep(arguments: Arguments, *, py_modules: Sequence[Path], presets: Path) -> int:
    """Check, prepare, sweep and draw; return 0, or 1 if a trial failed for good.

    Raises:
        UserError: whatever cannot be used, before Ray starts.
    """
    sweep = load_preset(arguments.preset, presets, _overrides(arguments))
    sweep = replace(sweep, plugins=(*sweep.plugins, *arguments.plugins))
    return run_configured(sweep, arguments, py_modules=py_modules)


def hold_exam(sweep_id: str, arguments: Arguments, *, py_modules: Sequence[Path]) -> int:
    """Read the test split for what a finished sweep has chosen; return 0, or 1 if it failed.

    Raises:
        UserError: no such sweep, or what it needs is missing.
    """
    sweep = examined(sweep_id, results_place(arguments.results))
    return run_configured(sweep, replace(arguments, sweep_id=sweep_id), py_modules=py_modules)


def run_configured(sweep: SweepConfig, arguments: Arguments, *, py_modules: Sequence[Path]) -> int:
    """Check, prepare, sweep and draw; what an earlier start has done stays.

    Args:
        sweep: all settings; what ``arguments`` would change of a preset is not looked at.
        arguments: folders, the sweep's id, and how far to go.
        py_modules: packages that workers import.

    Raises:
        UserError: whatever cannot be used, before Ray starts.
    """
    use_plugins(sweep.plugins)
    material = check_sweep(sweep, data_dir=arguments.data_dir, weights_dir=arguments.weights_dir)
    refuse_dead_address(os.environ.get("RAY_ADDRESS", "local"))
    for clause in check_contract(material):
        print(f"Unknown of the network, {clause.reason}: {clause.name}")
    results, here = results_place(arguments.results), results_root(arguments.results)
    if arguments.prepare_only:
        return _prepare_alone(material, results, py_modules)
    sweep_id = arguments.sweep_id or new_sweep_id(arguments.preset, results)
    _check_id(sweep_id)
    with alone(here, sweep_id):
        return _run_alone(arguments, material, sweep_id, results, here, py_modules)


def _prepare_alone(material: Material, results: Place, py_modules: Sequence[Path]) -> int:
    """Train what trials start from, and list what is prepared."""
    cache = results / "prepared"
    start_ray([*py_modules, *plugin_folders()])
    try:
        _check_cluster(material, results)
        prepared = prepare_on_cluster(material, cache)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.")
        raise
    finally:
        ray.shutdown()
    print("\n".join([f"Prepared {prepared.key}. {cache.address} holds:", *held(cache)]))
    return 0


def _run_alone(
    arguments: Arguments,
    material: Material,
    sweep_id: str,
    results: Place,
    here: Path,
    py_modules: Sequence[Path],
) -> int:
    """Run a sweep that no other process runs."""
    started, sweep = time.monotonic(), material.sweep
    mirror = Mirror(open_place(results, sweep_id, sweep), here / sweep_id)
    mirror.folder.mkdir(parents=True, exist_ok=True)
    parts = Parts.open(mirror.place, sweep.trials, arguments.extend)
    # Processes that open a fresh database together destroy it, so it is made here, alone.
    uri = resolve_uri(None, here)
    open_store(uri)
    shared = material.prepare_method(mirror.folder, uri, arguments.weights_dir)
    where = mirror.place.address
    print(f"Sweep {sweep_id}: results in {where}, MLflow at {without_password(uri)}")
    use_tune_settings()
    # Before hours of preparation: what Ray or the cluster cannot do.
    start_ray([*py_modules, *plugin_folders()])
    try:
        _check_cluster(material, results)
        prepared = prepare_on_cluster(material, results / "prepared")
        return _sweep(material, prepared, shared, sweep_id, mirror, parts, uri, started)
    except (KeyboardInterrupt, InterruptedSweepError):
        print(f"Interrupted. The same command with --sweep-id {sweep_id} goes on from here.")
        raise
    finally:
        ray.shutdown()


def _check_cluster(material: Material, results: Place) -> None:
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
    refuse_unshared(results)


def _sweep(
    material: Material,
    prepared: Prepared,
    shared: Any,
    sweep_id: str,
    mirror: Mirror,
    parts: Parts,
    uri: str,
    started: float,
) -> int:
    """Sweep and draw on the cluster that Ray is connected to; return the exit code."""
    folder = mirror.folder
    pictures = Thumbnails(material.data.validation)
    tracker = FrontierTracker(
        uri, EXPERIMENT, sweep_id, folder / "spool", report_dir=folder, pictures=pictures
    )
    tracker.start_sweep(_params(material, prepared))
    if any(prepared.curves.values()):
        tracker.log_curves(f"preparation-{prepared.key}", prepared.curves)
    ledger = Ledger(tracker, material.sweep.method)
    running = Sweep(
        material=material,
        prepared=prepared,
        sweep_id=sweep_id,
        mirror=mirror,
        ledger=ledger,
        parts=parts,
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
    if tracker.report is not None and mirror.place.local is None:
        for drawn in (tracker.report.page, tracker.report.picture, tracker.report.table):
            mirror.place.upload(drawn)
    looking = where_to_look(
        uri,
        folder.parent,
        tracker.page_path,
        usual_results=Path("results").resolve(),
        submitted=in_submitted_job(),
    )
    print(looking)
    return int(status != "FINISHED")


def _check_id(sweep_id: str) -> None:
    """Raise unless an id can name a folder and an MLflow tag."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", sweep_id):
        raise ConfigError(
            f"A sweep id holds letters, digits, '.', '_' and '-' only, but got {sweep_id!r}."
        )


def open_place(results: Place, sweep_id: str, sweep: SweepConfig) -> Place:
    """Return the sweep's place, created on the first start.

    Raises:
        ConfigError: one that was started with other settings; the message shows what differs.
        PlaceError: nothing can be written there.
    """
    place, settings = results / sweep_id, json.loads(json.dumps(asdict(sweep)))
    text = place.read_text(SETTINGS)
    started = settings if text is None else json.loads(text)
    before, now = flat(started), flat(settings)
    changes = [
        f"{name} from {before.get(name)!r} to {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name.split(".")[0] not in _MAY_CHANGE
    ]
    if changes:
        raise ConfigError(
            f"Sweep {sweep_id!r} goes on with the settings that it was started with, `resources` "
            f"and `exam` excepted, but this start changes {', '.join(changes)}: choose another "
            "--sweep-id."
        )
    if text is None or started != settings:
        place.write_text(SETTINGS, json.dumps(settings, indent=2) + "\n")
    return place


@contextmanager
def alone(here: Path, sweep_id: str) -> Iterator[None]:
    """Keep other processes of this machine from running the same sweep inside the block.

    Raises:
        UserError: one does.
    """
    try:
        with locked(here / "locks" / sweep_id, wait=False):
            yield
    except BlockingIOError as error:
        raise UserError(
            f"Sweep {sweep_id!r} is running already: wait for its end, or choose another "
            "--sweep-id."
        ) from error


def new_sweep_id(preset: str, results: Place) -> str:
    """Return a new id, whose folder is made: the preset's name, the time, a number if need be."""
    first = f"{Path(preset).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    later = (f"{first}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([first], later) if results.claim(name))


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
        "data": {
            "name": sweep.dataset,
            "content": material.data.content_hash(),
            **{type(split).__name__: len(split) for split in material.data.splits},
        },
        "kernels": library.description(),
    }


def _conclude(ledger: Ledger, tracker: FrontierTracker, seconds: float) -> None:
    """Print the frontier, and where its page lies."""
    print(f"\n{len(ledger)} operating points in {seconds / 60:.1f} minutes. The frontier:\n")
    print(ledger.table())
    if tracker.report is not None:
        print(f"\nThe page: {tracker.report.page}")
