"""Commands that send an operating point away, and run it where it has come to."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime_pruning.cli.options import (
    Batches,
    DataDir,
    Json,
    ListsOfNumbers,
    Panel,
    Results,
    Split,
    Threads,
    print_json,
    use_threads,
)
from runtime_pruning.errors import DataError

if TYPE_CHECKING:
    from runtime_pruning.deploy.card import Card

app = typer.Typer()
command = app.command(rich_help_panel=Panel.SHIP)

Bundle = Annotated[Path, typer.Argument(help="Folder that `export` wrote.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="What an image may cost in the mean: macs=2e7, ms=3.5 or penalty=0.4; the exported "
        "point if absent."
    ),
]


class DialFrom(StrEnum):
    """Which other points a bundle can be turned to."""

    TRIAL = "trial"
    SWEEP = "sweep"
    NONE = "none"


@command
def export(
    point: Annotated[str, typer.Argument(help="Id of a point; `pick` and the page print it.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, empty or absent.")],
    dial: Annotated[
        DialFrom,
        typer.Option(
            help="Other points that a budget can choose: of the point's trial, of the sweep's "
            "front, or none."
        ),
    ] = DialFrom.TRIAL,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "not stated",
    time: Annotated[
        bool, typer.Option("--time", help="Time it on this device, for budgets in ms.")
    ] = False,
    data_dir: DataDir = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Write a bundle of a point that knows all about itself."""
    from runtime_pruning.sweeping.exporting import export_point
    from runtime_pruning.sweeping.places import results_root
    from runtime_pruning.tracking.storage import resolve_uri

    card = export_point(
        resolve_uri(None, results_root(results)),
        point,
        out,
        dial=dial.value,
        licence=licence,
        time_here=time,
        data_dir=data_dir,
    )
    if as_json:
        print_json(asdict(card))
    else:
        print(_card_text(card, out))


def _card_text(card: "Card", folder: Path) -> str:
    """Return what a person reads of a bundle."""
    low, value, high = (100 * each for each in card.stop.accuracy)
    macs = card.stop.macs_per_image[1]
    lines = [
        f"Bundle of point {card.stop.point_id} in {folder.resolve()}",
        f"  {card.dataset}, {len(card.classes)} classes: {value:.2f} % [{low:.2f}, {high:.2f}] on "
        f"{card.stop.images} {card.stop.split} images",
        f"  {macs:,.0f} MACs per image, {macs / card.dense_macs:.1%} of dense",
        f"  {len(card.stops)} stops on its dial",
    ]
    return "\n".join(lines)


@command
def predict(
    bundle: Bundle,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    budget: Budget = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Label images: name, probability, and compute spent on each."""
    from runtime_pruning.deploy.shipped import load_bundle

    use_threads(threads)
    shipped, files = load_bundle(bundle), _image_files(images)
    found = shipped.predict([*files], budget)
    told = [
        {"image": str(file), "label": label, "probability": probability, "macs": macs}
        for file, label, probability, macs in zip(
            files,
            found.labels,
            found.probabilities_BK.amax(1).tolist(),
            found.macs_B.tolist(),
            strict=True,
        )
    ]
    if as_json:
        print_json(told)
        return
    dense = shipped.card.dense_macs
    for each, macs in zip(told, found.macs_B.tolist(), strict=True):
        print(
            f"{each['image']}: {each['label']} {each['probability']:.1%}, {macs:,} MACs "
            f"({macs / dense:.1%} of dense)"
        )


def _image_files(paths: list[Path]) -> list[Path]:
    """Return files, and the images of folders.

    Raises:
        DataError: there is nothing of that name, or no image in a folder.
    """
    from runtime_pruning.datasets.decoding import suffixes

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"There is no image {str(path)!r}.")
        inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in suffixes()]
        if path.is_dir() and not inside:
            raise DataError(f"The folder {str(path)!r} holds no images.")
        files += inside if path.is_dir() else [path]
    return files


@app.command(cls=ListsOfNumbers, rich_help_panel=Panel.SHIP)
def evaluate(
    bundle: Bundle,
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of images per class, named like the classes.")
    ] = None,
    split: Annotated[
        Split | None, typer.Option(help="In place of a folder: of the bundle's dataset.")
    ] = None,
    budget: Budget = None,
    batch: Batches = [],  # noqa: B006  Typer reads it, and hands out a new list
    threads: Threads = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Accuracy on labelled images, with its interval, and time."""
    from runtime_pruning.deploy.evaluation import evaluate_bundle, labelled_files, time_on
    from runtime_pruning.deploy.images import prepare
    from runtime_pruning.deploy.shipped import load_bundle

    if (folder is None) == (split is None):
        raise DataError("Give a folder of images per class or a --split, and not both.")
    use_threads(threads)
    shipped = load_bundle(bundle)
    if folder is not None:
        files, labels = labelled_files(folder, shipped.card.classes)
        found = evaluate_bundle(shipped, files, labels, budget)
        few = prepare([*files[: max([64, *batch])]], shipped.card.preprocessing) if batch else None
    else:
        from runtime_pruning.datasets import load, to_float

        data = load(shipped.card.dataset, data_dir, shipped.card.dataset_settings)
        held_out = data.test if split is Split.TEST else data.validation
        pixels = to_float(held_out.images_NCHW[:])
        found = evaluate_bundle(shipped, pixels, held_out.labels_N.tolist(), budget)
        few = pixels[: max([64, *batch])]
    timings = [] if few is None else time_on(shipped, few, batch)
    if as_json:
        timed = [str(timing.measurement) for timing in timings]
        print_json({**asdict(found), "timings": timed})
        return
    low, value, high = (100 * each for each in found.accuracy)
    print(f"{value:.2f} % [{low:.2f}, {high:.2f}] of {found.images} images are labelled rightly")
    print(f"{found.macs_per_image:,.0f} MACs per image, {found.macs_fraction:.1%} of dense")
    for timing in timings:
        print(f"batch {timing.batch}: {timing.measurement} over its backbone at full width")
