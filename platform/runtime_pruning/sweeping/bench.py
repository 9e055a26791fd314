"""Several methods on the same backbone, data, preparation and clock: one sweep each, one frontier.

A bench is a YAML file: ``base`` holds the settings that all sweeps share, ``methods`` what each has
of its own, by a name of its choice. Sweeps run one after the other under ids that begin with the
bench's; a sweep that is finished is not run again. Where a cascade's ``members`` name ``earlier``,
the sweeps before it in the file are meant.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from runtime_pruning.config import build_config
from runtime_pruning.errors import ConfigError
from runtime_pruning.files import write_text
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.ranking import ranking_table
from runtime_pruning.sweeping.arguments import Arguments
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.places import results_root
from runtime_pruning.sweeping.presets import read_preset
from runtime_pruning.sweeping.run import run_configured
from runtime_pruning.tracking.boards import read_board
from runtime_pruning.tracking.rebuild import point_runs, rebuild_timings, sweep_run
from runtime_pruning.tracking.storage import open_store, resolve_uri

EARLIER = "earlier"
TABLE = "methods.md"


class Entry(NamedTuple):
    """One sweep of a bench: the name that it has there, and its settings."""

    name: str
    settings: dict[str, Any]

    def sweep(self, earlier: Sequence[str]) -> SweepConfig:
        """Return the sweep, the ids of the sweeps before it known.

        Raises:
            ConfigError: a misspelt key, or a value outside its range.
        """
        settings = deepcopy(self.settings)
        own = settings.get("settings") or {}
        if EARLIER in (own.get("members") or ()):
            named = [[*earlier] if name == EARLIER else [name] for name in own["members"]]
            own["members"] = [name for names in named for name in names]
        return build_config(SweepConfig, settings, where=f"Bench, {self.name!r}")


def read_bench(name: str, folder: Path) -> list[Entry]:
    """Return the sweeps of a bench, in their order.

    Args:
        name: of a bench in ``folder``, or the path of a YAML file.
        folder: where named benches lie.

    Raises:
        ConfigError: no such bench, one without methods, or a faulty setting of any.
    """
    values = read_preset(name, folder)
    unknown = sorted(set(values) - {"base", "methods"})
    methods = values.get("methods")
    if unknown or not isinstance(methods, dict) or not methods:
        raise ConfigError(
            f"Bench {name!r} must hold `base` and `methods`, and nothing else, but got "
            f"{sorted(values)}."
        )
    entries = [
        Entry(own, merged(values.get("base") or {}, changes or {}))
        for own, changes in methods.items()
    ]
    for number, entry in enumerate(entries):
        entry.sweep([f"bench-{each.name}" for each in entries[:number]])
    return entries


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some changed; lists are replaced whole."""
    both = deepcopy(dict(base))
    for name, value in changes.items():
        inner = both.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            both[name] = merged(inner, value)
        else:
            both[name] = deepcopy(value)
    return both


def run_bench(
    name: str, bench_id: str, arguments: Arguments, *, py_modules: Sequence[Path], benches: Path
) -> int:
    """Run the sweeps of a bench that are not finished, then draw all; return 0, or 1 if one failed.

    Args:
        name: of the bench, or the path of its file.
        bench_id: begins the ids of its sweeps; the same one again goes on.
        arguments: folders of data, weights and results, and plugins; the rest is the bench's.
        py_modules: packages that workers import.
        benches: where named benches lie.
    """
    entries = read_bench(name, benches)
    ids = [f"{bench_id}-{entry.name}" for entry in entries]
    uri = resolve_uri(None, results_root(arguments.results))
    failed = 0
    for number, (entry, sweep_id) in enumerate(zip(entries, ids, strict=True)):
        if is_finished(uri, sweep_id):
            print(f"Sweep {sweep_id} is finished.")
            continue
        sweep = entry.sweep(ids[:number])
        sweep = replace(sweep, plugins=(*sweep.plugins, *arguments.plugins))
        failed |= run_configured(
            sweep, replace(arguments, sweep_id=sweep_id), py_modules=py_modules
        )
    folder = results_root(arguments.results) / bench_id
    draw_bench(uri, dict(zip([entry.name for entry in entries], ids, strict=True)), folder)
    print(f"The page of all methods: {folder / 'frontier.html'}")
    return failed


def is_finished(uri: str, sweep_id: str) -> bool:
    """Whether a sweep has come to its end, nothing of it having failed."""
    run = sweep_run(open_store(uri), sweep_id)
    return run is not None and run.info.status == "FINISHED"


def draw_bench(uri: str, sweeps: Mapping[str, str], folder: Path) -> str:
    """Draw one frontier of several sweeps, write and return the table of their methods.

    Args:
        uri: the store.
        sweeps: their ids by the name that the table has for each.
        folder: gets page, picture and tables.
    """
    ids = list(sweeps.values())
    board = read_board(uri, ids)
    board.draw(folder)
    by_id = {point.point_id: point for point in board.points}
    methods = {name: _swept(uri, sweep_id, by_id) for name, sweep_id in sweeps.items()}
    timings = {id_: own for each in ids for id_, own in rebuild_timings(uri, each).items()}
    batches = sorted({timing.batch for own in timings.values() for timing in own})
    table = ranking_table(methods, timings, batches)
    write_text(folder / TABLE, table + "\n")
    print(f"\n{table}\n")
    return table


def _swept(uri: str, sweep_id: str, by_id: Mapping[str, OperatingPoint]) -> list[OperatingPoint]:
    """Return the points of a sweep's own method: those of its controls stand in every sweep."""
    client = open_store(uri)
    run = sweep_run(client, sweep_id)
    method = "" if run is None else run.data.params["method"]
    ids = [run.data.tags["frontier.point_id"] for run in point_runs(client, sweep_id)]
    return [by_id[each] for each in ids if by_id[each].method == method]
