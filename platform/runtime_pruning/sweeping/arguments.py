"""What a person says of the sweep that is to run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The command line of a sweep.

    Attributes:
        preset: a name in the folder of presets, or a YAML file.
        overrides: ``key=value`` changes to it.
        backbone: in place of the preset's, as are ``dataset``, ``trials`` and ``seed``.
        dataset: see there.
        trials: see there.
        seed: see there.
        plugins: modules to import first, beside the preset's.
        members: of a cascade, in place of the preset's: ids of finished sweeps, or ``own`` and the
            like.
        data_dir: folder of the dataset.
        weights_dir: folder of weights.
        results: folder for results, or address of one.
        prepare_only: train what trials start from, and stop.
        sweep_id: of an interrupted sweep that is to go on; a new one if absent.
        extend: add so many trials to the sweep of that id.
    """

    preset: str = "digits"
    overrides: tuple[str, ...] = ()
    backbone: str | None = None
    dataset: str | None = None
    trials: int | None = None
    seed: int | None = None
    plugins: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    data_dir: Path | None = None
    weights_dir: Path | None = None
    results: str | None = None
    prepare_only: bool = False
    sweep_id: str | None = None
    extend: int | None = None
