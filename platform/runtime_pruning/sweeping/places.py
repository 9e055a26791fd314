"""Where results go: a folder of this machine, or one that a submitted job's nodes share."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from runtime_pruning.errors import ConfigError

RESULTS_VARIABLE = "RUNTIME_PRUNING_RESULTS"
# Ray's own, in the driver of a submitted job.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def results_root(chosen: Path | None = None) -> Path:
    """Return the absolute folder for results.

    In this order: the chosen one; ``$RUNTIME_PRUNING_RESULTS``; inside a submitted job, whose
    working directory is a throw-away copy, ``~/runtime-pruning``; else ``results`` here.

    Raises:
        ConfigError: an address of something else than a folder, such as ``s3://bucket``.
    """
    named = chosen or os.environ.get(RESULTS_VARIABLE)
    if named:
        return _local_folder(str(named)).expanduser().resolve()
    if in_submitted_job():
        return Path.home() / "runtime-pruning"
    return Path("results").resolve()


def _local_folder(named: str) -> Path:
    """Return the folder that a path or a ``file://`` address names."""
    # A path has lost one of an address's slashes.
    address = re.fullmatch(r"(\w[\w+.-]*):/(/?.*)", named)
    if address is None:
        return Path(named)
    scheme, rest = address.groups()
    if scheme != "file":
        raise ConfigError(
            f"Results must go to a folder that all nodes see, but got the address {named!r}: mount "
            "it, and name the folder that it is mounted as."
        )
    return Path("/" + unquote(rest).lstrip("/"))


def in_submitted_job() -> bool:
    """Whether `ray job submit` started this process."""
    return JOB_CONFIG in os.environ
