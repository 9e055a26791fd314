"""Where results go: a folder of this machine, or a place that a submitted job's nodes share."""

import os
import re
from pathlib import Path

from runtime_pruning.places import Place

RESULTS_VARIABLE = "RUNTIME_PRUNING_RESULTS"
# What a sweep keeps on this machine where no folder is named.
_HOME = Path("~/runtime-pruning")
# Ray's own, in the driver of a submitted job.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def results_place(chosen: str | Path | None = None) -> Place:
    """Return where results go.

    In this order: the chosen place; ``$RUNTIME_PRUNING_RESULTS``; inside a submitted job, whose
    working directory is a throw-away copy, ``~/runtime-pruning``; else ``results`` here.

    Raises:
        ConfigError: an address of another kind than ``file://``, ``s3://`` or ``gs://``.
    """
    named = chosen or os.environ.get(RESULTS_VARIABLE)
    if not named:
        return Place.at(_HOME.expanduser() if in_submitted_job() else Path("results").resolve())
    place = Place.at(named)
    return place if place.local is None else Place.at(place.local.resolve())


def results_root(chosen: str | Path | None = None) -> Path:
    """Return the absolute folder, on this machine, of what is not at an address.

    That is the folder for results, where it is one. For results at an address it is one below
    ``~/runtime-pruning``: of events that wait for MLflow, drawings, copies of the points, and
    MLflow's database where no server is named.
    """
    place = results_place(chosen)
    if place.local is not None:
        return place.local
    return _HOME.expanduser() / re.sub(r"[^\w.-]+", "-", place.address)


def in_submitted_job() -> bool:
    """Whether `ray job submit` started this process."""
    return JOB_CONFIG in os.environ
