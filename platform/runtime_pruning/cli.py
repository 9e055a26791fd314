"""The command ``runtime-pruning``: look at what is there, and at what came of a sweep."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime_pruning import backbones, cost, datasets, methods
from runtime_pruning.errors import UserError
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.report import write_report
from runtime_pruning.frontier.summary import summarise
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.sweeping.cluster import results_root
from runtime_pruning.tracking.rebuild import rebuild
from runtime_pruning.tracking.storage import open_store, resolve_uri


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code: 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtime-pruning", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plugins = commands.add_parser("plugins", help="list backbones, datasets, costs and methods")
    plugins.set_defaults(run=_plugins)
    ui = commands.add_parser("ui", help="open the MLflow UI on 127.0.0.1")
    ui.add_argument("--results", type=Path, help="where sweeps write; results by default")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(run=_ui)
    report = commands.add_parser("report", help="draw a sweep's frontier from MLflow alone")
    report.add_argument("sweep_id")
    report.add_argument("--out", type=Path, default=Path(), help="folder for page and picture")
    report.add_argument("--results", type=Path, help="where sweeps write; results by default")
    report.set_defaults(run=_report)
    return parser


def _plugins(arguments: argparse.Namespace) -> None:
    """List what is registered."""
    kinds = {"backbones": backbones, "datasets": datasets, "costs": cost, "methods": methods}
    for kind, package in kinds.items():
        print(f"{kind:10} {', '.join(package.names())}")


def _ui(arguments: argparse.Namespace) -> None:
    """Serve the store on 127.0.0.1 until interrupted."""
    uri = resolve_uri(None, results_root(arguments.results))
    open_store(uri)
    if uri.startswith("http"):
        print(f"The tracking server is at {uri}")
        return
    print(f"MLflow on {uri}: http://127.0.0.1:{arguments.port}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(arguments.port), "--workers", "1"]
    # Without its job runner the server is two processes instead of ten.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        subprocess.run(command, env=environment, check=True)
    except KeyboardInterrupt:
        print("Stopped.")


def _report(arguments: argparse.Namespace) -> None:
    """Rebuild a sweep's frontier from MLflow, and draw it."""
    uri = resolve_uri(None, results_root(arguments.results))
    stored = rebuild(uri, arguments.sweep_id)
    summary = summarise(
        [each.point for each in stored],
        [Evidence.of(each.record) for each in stored],
        reference=Reference(),
    )
    dense = [each.point.accuracy for each in stored if each.point.method == "dense"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_report(summary, arguments.out, dense_accuracy=dense[0] if dense else None)
    print(f"Drew {len(stored)} points into {arguments.out.resolve()}")
