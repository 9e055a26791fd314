"""What options of several commands have in common: their types, and lists of numbers."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from runtime_pruning.errors import ConfigError


class Panel(StrEnum):
    """The chapters of `--help`, in their order."""

    SWEEP = "Map a frontier"
    LOOK = "Look at it and choose"
    SHIP = "Ship an operating point"
    TOOLS = "Backbones, devices and plugins"


class Dtype(StrEnum):
    """Type of weights and features."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Split(StrEnum):
    """A held-out split."""

    VALIDATION = "validation"
    TEST = "test"


class ListsOfNumbers(TyperCommand):
    """A command that takes `--batch 1 64` beside `--batch 1 --batch 64`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat an option that may be given several times before each number that follows it."""
        repeated = {
            name for option in self.params if getattr(option, "multiple", 0) for name in option.opts
        }
        return super().parse_args(ctx, spread(args, repeated))


def spread(arguments: Sequence[str], repeated: set[str]) -> list[str]:
    """Return arguments in which each number of a list has its option before it."""
    spread_out: list[str] = []
    option: str | None = None
    for argument in arguments:
        if option is not None and argument.isdigit() and spread_out[-1] != option:
            spread_out.append(option)
        elif not argument.isdigit():
            option = argument if argument in repeated else None
        spread_out.append(argument)
    return spread_out


def image_shape(text: str) -> tuple[int, int, int]:
    """Return an image shape such as ``3,32,32``.

    Raises:
        ConfigError: not three numbers.
    """
    try:
        channels, height, width = (int(size) for size in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"An image's shape must be CHANNELS,HEIGHT,WIDTH such as 3,32,32, but got {text!r}."
        ) from error
    return channels, height, width


def use_threads(threads: int | None) -> None:
    """Keep torch to so many threads, if a number is given.

    Raises:
        ConfigError: below 1.
    """
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"`threads >= 1` must hold, but got {threads}.")
        import torch

        torch.set_num_threads(threads)


def print_json(value: Any) -> None:
    """Print a value for a script, and nothing else."""
    json.dump(value, sys.stdout, indent=2)
    print()


def preset_names() -> list[str]:
    """Return the presets that ``--preset`` can name here, for completion."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def sweep_ids() -> list[str]:
    """Return the sweeps in the results folder, for completion."""
    from runtime_pruning.sweeping.places import results_root

    return sorted(path.parent.name for path in results_root().glob("*/sweep.json"))


def presets_folder() -> Path:
    """Return the folder of named presets beside the source of this package."""
    return Path(__file__).resolve().parents[3] / "sweeps" / "presets"


SweepId = Annotated[str, typer.Argument(autocompletion=sweep_ids, show_default=False)]
SweepIds = Annotated[list[str], typer.Argument(autocompletion=sweep_ids, show_default=False)]
Results = Annotated[
    str | None,
    typer.Option(
        help="Where sweeps write: a folder, file://, s3:// or gs://; results by default.",
        show_default=False,
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the dataset.", show_default=False)]
Threads = Annotated[
    int | None, typer.Option(help="Of torch; its own choice if absent.", show_default=False)
]
Batches = Annotated[list[int], typer.Option(metavar="B...", help="Images per call.")]
Json = Annotated[bool, typer.Option("--json", help="For a script: print JSON, nothing else.")]
