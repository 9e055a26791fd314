"""Commands about one backbone or method, this device, and what can be named."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime_pruning.cli.options import (
    Batches,
    Dtype,
    Json,
    ListsOfNumbers,
    Panel,
    image_shape,
    print_json,
    use_threads,
)

app = typer.Typer()

BackboneName = Annotated[str, typer.Argument(help="A name that `plugins` lists.")]
Shape = Annotated[Any, typer.Option(parser=image_shape, metavar="C,H,W", help="Of the images.")]
Groups = Annotated[int, typer.Option(help="Per site.")]


@app.command(rich_help_panel=Panel.TOOLS)
def check_backbone(
    backbone: BackboneName,
    groups: Groups = 4,
    align: Annotated[int, typer.Option(help="Multiple of group bounds.")] = 8,
    image_shape: Shape = "3,32,32",
) -> int:
    """Try a backbone against its contract: its scorecard."""
    from runtime_pruning.testing.scorecard import score

    card = score(backbone, image_shape=image_shape, groups=groups, align=align)
    print(card)
    return 0 if card.passed else 1


@app.command(rich_help_panel=Panel.TOOLS)
def check_method(
    method: Annotated[str, typer.Argument(help="A name that `plugins` lists.")],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Of the method; small ones, since it runs four times: --set episodes=32.",
        ),
    ] = [],  # noqa: B006  Typer reads it, and hands out a new list
) -> int:
    """Try a method against its contract."""
    from runtime_pruning import methods
    from runtime_pruning.sweeping.presets import assign
    from runtime_pruning.testing.methods import try_method

    values: dict[str, Any] = {}
    for assignment in settings:
        assign(values, assignment)
    if methods.get(method).trains_agent:
        import ray

        ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    card = try_method(method, values)
    print(card)
    return 0 if card.passed else 1


@app.command(cls=ListsOfNumbers, rich_help_panel=Panel.TOOLS)
def calibrate(
    backbone: BackboneName,
    out: Annotated[Path, typer.Option(help="Folder of latency tables.")],
    dataset_shape: Shape = "3,32,32",
    groups: Groups = 4,
    batch: Batches = [1],  # noqa: B006  Typer reads it, and hands out a new list
    classes: Annotated[int, typer.Option(help="Length of the logits.")] = 10,
    dtype: Dtype = Dtype.FLOAT32,
    threads: Annotated[
        int | None, typer.Option(help="Of one operation; torch's choice if absent.")
    ] = None,
    passes: Annotated[int, typer.Option(help="Over all plans; more is steadier.")] = 3,
) -> None:
    """Time a backbone on this device: its latency table."""
    import torch

    from runtime_pruning import backbones
    from runtime_pruning.cost.calibration import calibrate as timed_table
    from runtime_pruning.cost.latency_cost import table_path
    from runtime_pruning.cost.prediction_error import predicted_against_measured
    from runtime_pruning.cost.timed_stages import timed_deployed
    from runtime_pruning.network import trace

    use_threads(threads)
    plain = backbones.create(backbone, num_classes=classes, image_shape=dataset_shape)
    network = trace(plain, dataset_shape, groups=groups)
    timed = timed_deployed(network.eval(), dtype=getattr(torch, dtype.value))
    table = timed_table(
        timed, backbone=backbone, batches=batch, passes=passes, progress=sys.stderr.isatty()
    )
    path = table_path(out, timed)
    table.write(path)
    print(f"{len(table.rows)} latencies on {table.device_key}: {path}")
    for size in table.batches:
        print(f"batch {size}: {predicted_against_measured(table, timed, batch=size)}")
    if (disturbed := table.notes["disturbed_share"]) > 0.1:
        print(f"warning: {disturbed:.0%} of the timings were disturbed: calibrate on an idle host")


@app.command(rich_help_panel=Panel.TOOLS)
def plugins(as_json: Json = False) -> None:
    """List what can be named: backbones, datasets, methods."""
    from runtime_pruning import backbones, cost, datasets, methods
    from runtime_pruning.agents import algorithms

    kinds = {
        "backbones": backbones,
        "datasets": datasets,
        "costs": cost,
        "algorithms": algorithms,
        "methods": methods,
    }
    names = {kind: list(package.names()) for kind, package in kinds.items()}
    if as_json:
        print_json(names)
        return
    for kind, known in names.items():
        print(f"{kind:10} {', '.join(known)}")
