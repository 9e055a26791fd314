"""The command ``runtime-pruning``: look at what is there, and at what came of a sweep."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from runtime_pruning import backbones, cost, datasets, methods
from runtime_pruning.agents import algorithms
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency_cost import table_path
from runtime_pruning.cost.prediction_error import predicted_against_measured
from runtime_pruning.cost.timed_stages import timed_deployed
from runtime_pruning.datasets import to_float
from runtime_pruning.deploy import read_bundle, time_bundle
from runtime_pruning.errors import ConfigError, RuntimePruningError, UserError
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.proof import CONTROLS
from runtime_pruning.frontier.report import draw_report
from runtime_pruning.frontier.style import gain_text
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.network import trace
from runtime_pruning.sweeping.cluster import results_root
from runtime_pruning.sweeping.explaining import explain_sweep
from runtime_pruning.sweeping.zoo import train_recipe
from runtime_pruning.testing.scorecard import score
from runtime_pruning.tracking.rebuild import frontier_pages, rebuild, rebuild_proofs, rebuild_test
from runtime_pruning.tracking.storage import open_store, resolve_uri

DTYPES = ["float32", "bfloat16"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code: 0, 1 if a check failed, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimePruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtime-pruning", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plugins = commands.add_parser(
        "plugins", help="list backbones, datasets, costs, algorithms and methods"
    )
    plugins.set_defaults(run=_plugins)
    ui = commands.add_parser("ui", help="open the MLflow UI on 127.0.0.1")
    ui.add_argument("--results", type=Path, help="where sweeps write; results by default")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(run=_ui)
    report = commands.add_parser("report", help="draw a sweep's frontier from MLflow alone")
    report.add_argument("sweep_id")
    report.add_argument(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="test: the points that were chosen on validation, as the test split sees them",
    )
    report.add_argument("--out", type=Path, default=Path(), help="folder for page and picture")
    report.add_argument("--results", type=Path, help="where sweeps write; results by default")
    report.set_defaults(run=_report)
    explain = commands.add_parser("explain", help="show whether decisions depend on the image")
    explain.add_argument("sweep_id")
    explain.add_argument(
        "--point", metavar="ID", help="this one only; all that were tried if absent"
    )
    explain.add_argument("--split", choices=["validation", "test"], default="validation")
    explain.add_argument("--out", type=Path, required=True, help="gets a folder per point")
    explain.add_argument("--data-dir", type=Path, help="folder of the dataset")
    explain.add_argument("--results", type=Path, help="where sweeps write; results by default")
    explain.set_defaults(run=_explain)
    timed = commands.add_parser("measure", help="time a bundle on this device, against dense")
    timed.add_argument("bundle", type=Path, help="folder of an operating point's bundle")
    timed.add_argument("--dataset", required=True, help="whose validation images are run")
    timed.add_argument("--data-dir", type=Path, help="folder of the dataset")
    timed.add_argument("--images", type=int, default=128, help="how many")
    timed.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    timed.add_argument("--dtype", choices=DTYPES, default="float32")
    timed.add_argument("--threads", type=int, help="of torch; its own choice if absent")
    timed.set_defaults(run=_measure)
    trained = commands.add_parser("train", help="train a network of the zoo by its recipe")
    trained.add_argument("recipe", type=Path, help="a YAML file: zoo/resnet20-cifar10.yaml")
    trained.add_argument("--data-dir", type=Path, help="folder of the dataset")
    trained.add_argument("--epochs", type=int, help="in place of the recipe's")
    trained.add_argument("--threads", type=int, help="of torch; its own choice if absent")
    trained.set_defaults(run=_train)
    _add_backbone_commands(commands)
    return parser


def _add_backbone_commands(commands: Any) -> None:
    """Add what looks at one backbone: its contract, and its times on this device."""
    check = commands.add_parser("check-backbone", help="try a backbone against its contract")
    check.add_argument("backbone")
    check.add_argument("--groups", type=int, default=4, help="per site; 4 by default")
    check.add_argument("--align", type=int, default=8, help="multiple of group bounds")
    check.add_argument("--image-shape", type=_shape, default=(3, 32, 32), metavar="C,H,W")
    check.set_defaults(run=_check_backbone)
    times = commands.add_parser("calibrate", help="time a backbone's units on this device")
    times.add_argument("backbone")
    times.add_argument("--dataset-shape", type=_shape, default=(3, 32, 32), metavar="C,H,W")
    times.add_argument("--groups", type=int, default=4, help="per site; 4 by default")
    times.add_argument("--batch", type=int, nargs="+", default=[1], help="images per call")
    times.add_argument("--classes", type=int, default=10, help="length of the logits")
    times.add_argument("--dtype", choices=DTYPES, default="float32")
    times.add_argument("--threads", type=int, help="of one operation; torch's choice by default")
    times.add_argument("--passes", type=int, default=3, help="over all plans; more is steadier")
    times.add_argument("--out", type=Path, required=True, help="folder of latency tables")
    times.set_defaults(run=_calibrate)


def _shape(text: str) -> tuple[int, int, int]:
    """Return an image shape such as ``3,32,32``."""
    channels, height, width = (int(size) for size in text.split(","))
    return channels, height, width


def _check_backbone(arguments: argparse.Namespace) -> int:
    """Print a backbone's scorecard; return 1 if a clause failed."""
    card = score(
        arguments.backbone,
        image_shape=arguments.image_shape,
        groups=arguments.groups,
        align=arguments.align,
    )
    print(card)
    return 0 if card.passed else 1


def _use_threads(threads: int | None) -> None:
    """Keep torch to so many threads, if a number is given."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"`threads >= 1` must hold, but got {threads}.")
        torch.set_num_threads(threads)


def _measure(arguments: argparse.Namespace) -> None:
    """Print how fast a bundle's policy is here, against its backbone at full width."""
    _use_threads(arguments.threads)
    if arguments.images < 1:
        raise ConfigError(f"`images >= 1` must hold, but got {arguments.images}.")
    bundle = read_bundle(arguments.bundle)
    split = datasets.load(arguments.dataset, arguments.data_dir).validation
    images_NCHW = to_float(split.images_NCHW[: arguments.images])
    if images_NCHW.shape[1:] != bundle.network.image_shape:
        raise ConfigError(
            f"The bundle takes images of shape {bundle.network.image_shape}, but those of "
            f"{arguments.dataset!r} are {tuple(images_NCHW.shape[1:])}."
        )
    dtype = getattr(torch, arguments.dtype)
    for timing in time_bundle(bundle, images_NCHW, arguments.batch, dtype=dtype):
        line = f"batch {timing.batch}, {timing.kernels}, mode {timing.mode}: "
        line += f"{timing.macs_speedup:.2f} times fewer MACs, {timing.measurement}"
        if timing.realisation is not None:
            line += f", realisation {timing.realisation:.2f}"
        if timing.mode == "full":
            line += "; no gain here: all images run at full width, undecided"
        print(line, flush=True)


def _calibrate(arguments: argparse.Namespace) -> None:
    """Write a backbone's latency table; say how well it predicts plans that it has not seen."""
    _use_threads(arguments.threads)
    shape = arguments.dataset_shape
    backbone = backbones.create(
        arguments.backbone, num_classes=arguments.classes, image_shape=shape
    )
    network = trace(backbone, shape, groups=arguments.groups)
    timed = timed_deployed(network.eval(), dtype=getattr(torch, arguments.dtype))
    table = calibrate(
        timed,
        backbone=arguments.backbone,
        batches=arguments.batch,
        passes=arguments.passes,
        progress=sys.stderr.isatty(),
    )
    path = table_path(arguments.out, timed)
    table.write(path)
    print(f"{len(table.rows)} latencies on {table.device_key}: {path}")
    for batch in table.batches:
        print(f"batch {batch}: {predicted_against_measured(table, timed, batch=batch)}")
    if (disturbed := table.notes["disturbed_share"]) > 0.1:
        print(f"warning: {disturbed:.0%} of the timings were disturbed: calibrate on an idle host")


def _train(arguments: argparse.Namespace) -> None:
    """Train a network of the zoo, or go on where that was interrupted."""
    _use_threads(arguments.threads)
    trained = train_recipe(arguments.recipe, data_dir=arguments.data_dir, epochs=arguments.epochs)
    print(f"Wrote {trained.weights} and {trained.manifest}")


def _plugins(arguments: argparse.Namespace) -> None:
    """List what is registered."""
    kinds = {
        "backbones": backbones,
        "datasets": datasets,
        "costs": cost,
        "algorithms": algorithms,
        "methods": methods,
    }
    for kind, package in kinds.items():
        print(f"{kind:10} {', '.join(package.names())}")


def _ui(arguments: argparse.Namespace) -> None:
    """Serve the store on 127.0.0.1 until interrupted."""
    uri = resolve_uri(None, results_root(arguments.results))
    open_store(uri)
    if uri.startswith("http"):
        print(f"The tracking server is at {uri}")
        return
    address = f"http://127.0.0.1:{arguments.port}"
    print(f"MLflow on {uri}: {address}\nThe frontier of each sweep, newest first:")
    for sweep_id, path in list(frontier_pages(uri).items())[:10]:
        print(f"  {sweep_id}: {address}{path}")
    print(flush=True)
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
    read = rebuild_test if arguments.split == "test" else rebuild
    stored = read(uri, arguments.sweep_id)
    draw_report(
        [(each.point, Evidence.of(each.record)) for each in stored],
        arguments.out,
        reference=Reference(),
        proofs=rebuild_proofs(uri, arguments.sweep_id, arguments.split),
    )
    print(f"Drew {len(stored)} points into {arguments.out.resolve()}")


def _explain(arguments: argparse.Namespace) -> None:
    """Write, per point, what its decisions depend on; print its gains over each control."""
    explained = explain_sweep(
        resolve_uri(None, results_root(arguments.results)),
        arguments.sweep_id,
        arguments.out.resolve(),
        point_id=arguments.point,
        split=arguments.split,
        data_dir=arguments.data_dir,
    )
    for folder, dynamics in explained:
        proof, plans = dynamics.proof, dynamics.decisions.distinct_plans
        print(f"{dynamics.point_id}: {proof.verdict}, {plans} distinct plans, in {folder}")
        for control in CONTROLS:
            gain = getattr(proof, control)
            print(
                f"  points over {control:9} {gain_text(gain)}  "
                f"({gain.accuracy:.2%} at {gain.macs_per_image / dynamics.dense_macs:.1%})"
            )
