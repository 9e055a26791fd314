"""Commands that run: a sweep, what it starts from, a network of the zoo."""

from pathlib import Path
from typing import Annotated

import typer

from runtime_pruning.cli.options import (
    DataDir,
    Panel,
    Results,
    SweepId,
    Threads,
    preset_names,
    presets_folder,
    use_threads,
)

app = typer.Typer()
command = app.command(rich_help_panel=Panel.SWEEP)

Preset = Annotated[
    str,
    typer.Option(help="A name in sweeps/presets, or a YAML file.", autocompletion=preset_names),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting: --set trials=12 --set settings.rounds=3.",
    ),
]
Backbone = Annotated[str | None, typer.Option(help="In place of the preset's.")]
Dataset = Annotated[str | None, typer.Option(help="In place of the preset's.")]
Trials = Annotated[int | None, typer.Option(help="In place of the preset's.")]
Seed = Annotated[int | None, typer.Option(help="In place of the preset's.")]
Plugins = Annotated[
    list[str],
    typer.Option(
        "--plugin",
        metavar="MODULE",
        help="Import this module first, beside the preset's plugins, here and on every worker.",
    ),
]
Members = Annotated[
    list[str],
    typer.Option(
        metavar="SOURCE",
        help="Of a cascade: the id of a finished sweep, or own, dense, controls; repeatable.",
    ),
]
WeightsDir = Annotated[
    Path | None, typer.Option(help="Folder of weights (or RUNTIME_PRUNING_WEIGHTS).")
]
PrepareOnly = Annotated[
    bool, typer.Option("--prepare-only", help="Train what trials start from, and stop.")
]
ResumedId = Annotated[
    str | None, typer.Option(help="The same id again goes on with an interrupted sweep.")
]
Extend = Annotated[
    int | None, typer.Option(metavar="N", help="Add N trials to the sweep of --sweep-id.")
]


@command
def sweep(
    preset: Preset = "digits",
    overrides: Overrides = [],  # noqa: B006  Typer reads it, and hands out a new list
    backbone: Backbone = None,
    dataset: Dataset = None,
    trials: Trials = None,
    seed: Seed = None,
    plugins: Plugins = [],  # noqa: B006
    members: Members = [],  # noqa: B006
    data_dir: DataDir = None,
    weights_dir: WeightsDir = None,
    results: Results = None,
    prepare_only: PrepareOnly = False,
    sweep_id: ResumedId = None,
    extend: Extend = None,
) -> int:
    """Sweep runtime pruning, and draw the accuracy-cost frontier."""
    from runtime_pruning.sweeping.arguments import Arguments
    from runtime_pruning.sweeping.run import run_sweep

    return run_sweep(
        Arguments(
            preset=preset,
            overrides=tuple(overrides),
            backbone=backbone,
            dataset=dataset,
            trials=trials,
            seed=seed,
            plugins=tuple(plugins),
            members=tuple(members),
            data_dir=data_dir,
            weights_dir=weights_dir,
            results=results,
            prepare_only=prepare_only,
            sweep_id=sweep_id,
            extend=extend,
        ),
        py_modules=_packages(),
        presets=presets_folder(),
    )


@command
def prepare(
    preset: Annotated[
        str,
        typer.Argument(
            help="A name in sweeps/presets, or a YAML file.", autocompletion=preset_names
        ),
    ] = "digits",
    overrides: Overrides = [],  # noqa: B006
    backbone: Backbone = None,
    dataset: Dataset = None,
    seed: Seed = None,
    plugins: Plugins = [],  # noqa: B006
    data_dir: DataDir = None,
    weights_dir: WeightsDir = None,
    results: Results = None,
) -> int:
    """Train what trials start from; list what is prepared."""
    return sweep(
        preset=preset,
        overrides=overrides,
        backbone=backbone,
        dataset=dataset,
        seed=seed,
        plugins=plugins,
        data_dir=data_dir,
        weights_dir=weights_dir,
        results=results,
        prepare_only=True,
    )


@command
def bench(
    name: Annotated[str, typer.Argument(help="A name in sweeps/benches, or a YAML file.")],
    bench_id: Annotated[
        str | None, typer.Option("--id", help="The same id again goes on where it stopped.")
    ] = None,
    plugins: Plugins = [],  # noqa: B006
    data_dir: DataDir = None,
    weights_dir: WeightsDir = None,
    results: Results = None,
) -> int:
    """Sweep several methods, and draw them in one frontier."""
    from runtime_pruning.sweeping.arguments import Arguments
    from runtime_pruning.sweeping.bench import run_bench

    return run_bench(
        name,
        bench_id or Path(name).stem,
        Arguments(
            plugins=tuple(plugins), data_dir=data_dir, weights_dir=weights_dir, results=results
        ),
        py_modules=_packages(),
        benches=presets_folder().parent / "benches",
    )


@command
def exam(
    sweep_id: SweepId,
    data_dir: DataDir = None,
    weights_dir: WeightsDir = None,
    results: Results = None,
) -> int:
    """Read the test split for what a finished sweep chose."""
    from runtime_pruning.sweeping.arguments import Arguments
    from runtime_pruning.sweeping.run import hold_exam

    arguments = Arguments(data_dir=data_dir, weights_dir=weights_dir, results=results)
    return hold_exam(sweep_id, arguments, py_modules=_packages())


def _packages() -> list[Path]:
    """Return the folders of the packages that workers import."""
    import pruning_envs
    import runtime_pruning

    return [Path(str(package.__file__)).parent for package in (runtime_pruning, pruning_envs)]


@command
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file: zoo/resnet20-cifar10.yaml.")],
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    threads: Threads = None,
) -> None:
    """Train a network of the zoo, or go on with its training."""
    from runtime_pruning.sweeping.zoo import train_recipe

    use_threads(threads)
    trained = train_recipe(recipe, data_dir=data_dir, epochs=epochs)
    print(f"Wrote {trained.weights} and {trained.manifest}")
