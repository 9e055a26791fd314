"""Commands that choose among the points of finished sweeps."""

from pathlib import Path
from typing import Annotated

import typer

from runtime_pruning.cli.options import (
    DataDir,
    Json,
    Panel,
    Results,
    SweepId,
    SweepIds,
    print_json,
)

EXIT_INFEASIBLE = 3

app = typer.Typer()
command = app.command(rich_help_panel=Panel.LOOK)


@command
def pick(
    sweep_ids: SweepIds,
    accuracy: Annotated[
        float | None, typer.Option(help="At least, in 0 to 1.", show_default=False)
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(help="At most, as a share of the dense MACs.", show_default=False),
    ] = None,
    class_loss: Annotated[
        float | None,
        typer.Option(
            help="Of the worst class against dense, at most, in 0 to 1.", show_default=False
        ),
    ] = None,
    p50: Annotated[
        float | None, typer.Option(help="Milliseconds per call, at most.", show_default=False)
    ] = None,
    p95: Annotated[
        float | None, typer.Option(help="Milliseconds per call, at most.", show_default=False)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Whose milliseconds; the only one by default.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per call.")] = 1,
    method: Annotated[
        str | None, typer.Option(help="Of this method only.", show_default=False)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Of this backbone only.", show_default=False)
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|cost",
            help="What is best; accuracy if cost is bounded, else cost.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    results: Results = None,
) -> int:
    """Choose the best point under constraints; code 3 if none is.

    Without a bound on cost the cheapest point is the best, with one the most accurate. Where no
    point keeps to what is asked for, the nearest miss is printed.
    """
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.picking import pick_point, plain, told
    from runtime_pruning.tracking.storage import resolve_uri

    asked = {
        "min_accuracy": accuracy,
        "max_macs_fraction": macs,
        "max_class_loss": class_loss,
        "max_p50_ms": p50,
        "max_p95_ms": p95,
        "device": device,
        "batch": batch,
        "method": method,
        "backbone": backbone,
        "prefer": prefer,
    }
    choice = pick_point(resolve_uri(None, results_root(results)), sweep_ids, asked)
    if json:
        print_json(plain(choice))
    else:
        print(told(choice))
    return 0 if choice.best is not None else EXIT_INFEASIBLE


@command
def reprice(
    sweep_id: SweepId,
    table: Annotated[Path, typer.Option(help="That `calibrate` wrote on the other device.")],
    batch: Annotated[int, typer.Option(help="Images per call.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a page with both axes; none if absent.", show_default=False),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    results: Results = None,
) -> None:
    """Price a finished frontier for another device."""
    from runtime_pruning.cost.latency import LatencyTable
    from runtime_pruning.sweeping import repricing
    from runtime_pruning.sweeping.picturing import pictures_of
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.storage import resolve_uri

    uri = resolve_uri(None, results_root(results))
    prices = LatencyTable.read(table)
    pictures = None if out is None else pictures_of(uri, sweep_id, data_dir)
    repriced = repricing.reprice(uri, sweep_id, prices, batch=batch, pictures=pictures)
    if json:
        print_json(repriced.to_dict())
    else:
        print(repricing.told(repriced))
    if out is not None:
        page = repriced.board.draw(out).page.resolve()
        if not json:
            print(f"The page: {page}")
