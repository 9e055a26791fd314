"""Commands that choose among the points of finished sweeps."""

from typing import Annotated

import typer

from runtime_pruning.cli.options import Json, Panel, Results, SweepIds, print_json

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
