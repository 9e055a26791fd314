"""Commands about one operating point's bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime_pruning.cli.options import (
    Batches,
    DataDir,
    Dtype,
    Json,
    ListsOfNumbers,
    Panel,
    Threads,
    print_json,
    use_threads,
)
from runtime_pruning.errors import ConfigError

if TYPE_CHECKING:
    from runtime_pruning.deploy.timing import BundleTiming

app = typer.Typer()


@app.command(cls=ListsOfNumbers, rich_help_panel=Panel.SHIP)
def measure(
    bundle: Annotated[Path, typer.Argument(help="Folder of an operating point's bundle.")],
    dataset: Annotated[str, typer.Option(help="Whose validation images are run.")],
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(help="How many.")] = 128,
    batch: Batches = [1, 64],  # noqa: B006  Typer reads it, and hands out a new list
    dtype: Dtype = Dtype.FLOAT32,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Time a bundle on this device, against dense."""
    import torch

    from runtime_pruning import datasets
    from runtime_pruning.datasets import to_float
    from runtime_pruning.deploy import read_bundle, time_bundle

    use_threads(threads)
    if images < 1:
        raise ConfigError(f"`images >= 1` must hold, but got {images}.")
    read = read_bundle(bundle)
    split = datasets.load(dataset, data_dir).validation
    images_NCHW = to_float(split.images_NCHW[:images])
    if images_NCHW.shape[1:] != read.image_shape:
        raise ConfigError(
            f"The bundle takes images of shape {read.image_shape}, but those of "
            f"{dataset!r} are {tuple(images_NCHW.shape[1:])}."
        )
    timings = time_bundle(read, images_NCHW, batch, dtype=getattr(torch, dtype.value))
    if as_json:
        print_json([_timing_facts(timing) for timing in timings])
        return
    for timing in timings:
        print(_timing_line(timing), flush=True)


def _timing_line(timing: "BundleTiming") -> str:
    """Return what a person reads of one size of batch."""
    line = f"batch {timing.batch}, {timing.kernels}, mode {timing.mode}: "
    line += f"{timing.macs_speedup:.2f} times fewer MACs, {timing.measurement}"
    if timing.realisation is not None:
        line += f", realisation {timing.realisation:.2f}"
    if timing.mode == "full":
        line += "; no gain here: all images run at full width, undecided"
    return line


def _timing_facts(timing: "BundleTiming") -> dict[str, object]:
    """Return what a script reads of one size of batch."""
    figures = timing.measurement.figures
    return {
        "batch": timing.batch,
        "kernels": timing.kernels,
        "mode": timing.mode,
        "macs_speedup": timing.macs_speedup,
        "verdict": timing.measurement.verdict,
        "speedup": None if figures is None else list(figures.speedup),
        "realisation": timing.realisation,
    }
