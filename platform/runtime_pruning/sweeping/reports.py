"""What a trial tells Ray Tune, and finds again when it goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.glossary import ACCURACY, ENV_STEPS, EPOCHS, MACS_FRACTION, POINT

if TYPE_CHECKING:
    from ray import tune

# In a trial's last report, which brings no point: that it ended, and why points are missing.
ENDED, INFEASIBLE = "ended", "infeasible"
# In a report: more training comes before the next point.
STAGE_ENDED = "stage_ended"
STATE = "state"  # the folder beside a point that its trial goes on from


def read_point(folder: Path) -> OperatingPoint:
    """Return the operating point that a point's folder holds."""
    return OperatingPoint.from_json((folder / POINT).read_text())


class Reported(NamedTuple):
    """A point that has been reported, and its folder."""

    folder: Path
    point: OperatingPoint

    @property
    def state(self) -> Path | None:
        """What the method needs to go on from the point, where it left anything."""
        folder = self.folder / STATE
        return folder if folder.is_dir() else None


class Stop(NamedTuple):
    """Why a trial was stopped.

    Attributes:
        rung: from 0.
        effort: that the trial had spent.
        place: of the trial among those that have come to the rung, from 1.
        trials: that have come to the rung.
        kept: how many of them go on.
    """

    rung: int
    effort: float
    place: int
    trials: int
    kept: int


def stop_mark(key: str) -> str:
    """Return the file in a sweep's place that says that a trial was stopped, and why."""
    return f"stopped/{key}.json"


def metrics_of(point: OperatingPoint, per_stage: int) -> dict[str, Any]:
    """Return what Tune, Optuna and early stopping hear of a point."""
    return {
        ACCURACY.name: point.accuracy,
        MACS_FRACTION.name: point.macs_fraction,
        ENV_STEPS.name: point.env_steps,
        EPOCHS.name: point.epochs,
        "point": point.index,
        STAGE_ENDED: (point.index + 1) % per_stage == 0,
    }


@contextmanager
def last_point(checkpoint: "tune.Checkpoint | None") -> Iterator["Reported | None"]:
    """Yield an interrupted trial's last point, or None in a fresh trial."""
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Reported(Path(folder), read_point(Path(folder)))
