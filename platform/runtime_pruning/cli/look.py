"""Commands that look at what came of a sweep, or at what there is."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime_pruning.cli.options import DataDir, Panel, Results, Split, SweepId, SweepIds
from runtime_pruning.errors import ConfigError

app = typer.Typer()
command = app.command(rich_help_panel=Panel.LOOK)


@command
def ui(
    results: Results = None, port: Annotated[int, typer.Option(help="To listen at.")] = 5000
) -> None:
    """Open MLflow on 127.0.0.1, and print each frontier's link."""
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.rebuild import frontier_pages
    from runtime_pruning.tracking.storage import read_store, resolve_uri

    uri = resolve_uri(None, results_root(results))
    read_store(uri)
    if uri.startswith("http"):
        print(f"The tracking server is at {uri}")
        return
    _refuse_taken(port)
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow on {uri}: {address}\nThe frontier of each sweep, newest first:")
    for sweep_id, path in list(frontier_pages(uri).items())[:10]:
        print(f"  {sweep_id}: {address}{path}")
    print(flush=True)
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    server += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Without its job runner the server is two processes instead of ten.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        subprocess.run(server, env=environment, check=True)
    except KeyboardInterrupt:
        print("Stopped.")


def _refuse_taken(port: int) -> None:
    """Refuse a port where a server listens: its answers would be taken for ours.

    Raises:
        ConfigError: names the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of 127.0.0.1 cannot be listened at ({error}): name another by --port."
            ) from error


@command
def report(
    sweep_ids: SweepIds,
    split: Annotated[
        Split,
        typer.Option(
            help="test: the points that were chosen on validation, as the test split sees them."
        ),
    ] = Split.VALIDATION,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for page and picture; frontier-SWEEP_ID if absent."),
    ] = None,
    data_dir: DataDir = None,
    results: Results = None,
) -> None:
    """Draw the frontier of one sweep or several from MLflow alone."""
    from runtime_pruning.sweeping.picturing import pictures_of
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.boards import read_board
    from runtime_pruning.tracking.storage import resolve_uri

    uri = resolve_uri(None, results_root(results))
    out = out or Path(f"frontier-{sweep_ids[0]}")
    if split is Split.TEST:
        _report_test(uri, sweep_ids, out)
        return
    board = read_board(uri, sweep_ids, pictures=pictures_of(uri, sweep_ids[0], data_dir))
    drawn = board.draw(out)
    print(f"Drew {len(board)} points: {drawn.page.resolve()}")


def _report_test(uri: str, sweep_ids: list[str], out: Path) -> None:
    """Draw what the test split sees of the points that a sweep chose."""
    from runtime_pruning.frontier.dominance import Reference
    from runtime_pruning.frontier.report import draw_report
    from runtime_pruning.frontier.uncertainty import Evidence
    from runtime_pruning.tracking.boards import read_board
    from runtime_pruning.tracking.rebuild import rebuild_proofs, rebuild_test

    if len(sweep_ids) > 1:
        raise ConfigError(f"The test split is reported of one sweep, but got {sweep_ids}.")
    stored = rebuild_test(uri, sweep_ids[0])
    on_front = read_board(uri, sweep_ids).on_front()
    draw_report(
        [(each.point, Evidence.of(each.record)) for each in stored],
        out,
        reference=Reference(),
        chosen={point_id for point_id, stays in on_front.items() if stays},
        proofs=rebuild_proofs(uri, sweep_ids[0], "test"),
    )
    print(f"Drew {len(stored)} points into {out.resolve()}")


@command
def watch(
    sweep_id: SweepId,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page; live in the sweep's by default.", show_default=False
        ),
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks at the store.")] = 5.0,
    data_dir: DataDir = None,
    results: Results = None,
) -> None:
    """Keep a page of the frontier up to date while a sweep runs."""
    from runtime_pruning.sweeping.picturing import pictures_of
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.storage import resolve_uri
    from runtime_pruning.tracking.watching import watch as keep_drawn

    root = results_root(results)
    uri = resolve_uri(None, root)
    folder = (out or root / sweep_id / "live").resolve()
    pictures = pictures_of(uri, sweep_id, data_dir)
    print(f"Open {folder / 'frontier.html'}; Ctrl-C stops watching, not the sweep.", flush=True)
    try:
        keep_drawn(uri, sweep_id, folder, pictures=pictures, every_s=every)
    except KeyboardInterrupt:
        print("Stopped watching.")


@command
def explain(
    sweep_id: SweepId,
    out: Annotated[Path, typer.Option(help="Gets a folder per point.")],
    point: Annotated[
        str | None, typer.Option(metavar="ID", help="This one only; all that were tried if absent.")
    ] = None,
    split: Split = Split.VALIDATION,
    data_dir: DataDir = None,
    results: Results = None,
) -> None:
    """Show what decisions depend on, and gain over each control."""
    from runtime_pruning.frontier.style import gain_text
    from runtime_pruning.sweeping.explaining import explain_sweep
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.storage import resolve_uri

    explained = explain_sweep(
        resolve_uri(None, results_root(results)),
        sweep_id,
        out.resolve(),
        point_id=point,
        split=split.value,
        data_dir=data_dir,
    )
    for folder, dynamics in explained:
        proof, plans = dynamics.proof, dynamics.decisions.distinct_plans
        print(f"{dynamics.point_id}: {proof.verdict}, {plans} distinct plans, in {folder}")
        for control, gain in proof.advantages.items():
            print(
                f"  points over {control:9} {gain_text(gain)}  "
                f"({gain.accuracy:.2%} at {gain.macs_per_image / dynamics.dense_macs:.1%})"
            )
