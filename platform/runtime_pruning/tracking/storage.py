"""Where runs are stored: find the store, create it once, and notice when it does not answer.

MLflow migrates a fresh database on first use; processes that do so together destroy it. So a
SQLite store is created under a lock file beside it, before anything else opens it.
"""

import atexit
import os
import re
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from runtime_pruning.errors import ConfigError, DataError, UserError
from runtime_pruning.files import locked

_SQLITE = "sqlite:///"


class StoreUnavailableError(UserError):
    """The store does not answer; what was to be written waits in the spool."""


def resolve_uri(uri: str | None, folder: Path) -> str:
    """Return the address of the store, the same from any working directory.

    Args:
        uri: as the user gave it; None looks at ``MLFLOW_TRACKING_URI``, then falls back to
            ``mlflow.db`` in ``folder``. A relative SQLite path is taken from ``folder``.
        folder: where results go.

    Raises:
        ConfigError: an address that is neither SQLite nor a server's.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{(folder.absolute() / uri.removeprefix(_SQLITE)).resolve()}"
    if not re.match(r"(https?|postgresql|mysql|mssql)(\+\w+)?://", uri):
        raise ConfigError(
            f"The tracking URI must be sqlite:///<path>, http(s):// or a database, but got {uri!r}."
        )
    return uri


def database_path(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for others."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def open_store(uri: str) -> MlflowClient:
    """Return a client of a store that exists, created and migrated first where it must be.

    Raises:
        StoreUnavailableError: a server that does not answer.
    """
    check_alive(uri)
    database = database_path(uri)
    if database is None:
        return MlflowClient(uri)
    with locked(database.with_name(f"{database.name}.lock")):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client


def read_store(uri: str) -> MlflowClient:
    """Return a client of a store that is there already, for reading; nothing is created.

    A SQLite store that may not be written to, or beside which no lock may lie, is read as a copy.

    Raises:
        DataError: no store is there.
        StoreUnavailableError: a server that does not answer.
    """
    database = database_path(uri)
    if database is None:
        return open_store(uri)
    if not database.is_file():
        raise DataError(
            f"No sweep has left results in {str(database.parent)!r}: name the folder of yours with "
            "--results or RUNTIME_PRUNING_RESULTS."
        )
    if os.access(database, os.W_OK) and os.access(database.parent, os.W_OK):
        return open_store(uri)
    return open_store(f"{_SQLITE}{_copy_of(database)}")


def _copy_of(database: Path) -> Path:
    """Return a copy of a database, consistent while others write, that goes when we do."""
    folder = tempfile.mkdtemp(prefix="runtime-pruning-store-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder) / database.name
    with (
        closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def check_alive(uri: str, timeout_s: float = 5.0) -> None:
    """Raise at once if a server does not answer; MLflow itself would retry for minutes.

    Raises:
        StoreUnavailableError: no answer, or not that of a healthy server.
    """
    if not uri.startswith("http"):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s):
            return
    except urllib.error.HTTPError as error:
        # Behind a login or a proxy /health may be refused: something answers, so let MLflow try.
        if error.code < 500:
            return
        raise StoreUnavailableError(f"The MLflow server at {uri} answers {error.code}.") from error
    except OSError as error:
        raise StoreUnavailableError(f"No MLflow server answers at {uri}: {error}.") from error


def find_or_create_experiment(client: MlflowClient, uri: str, name: str) -> Experiment:
    """Return the experiment of that name.

    Beside a SQLite store, artifacts go to a folder next to the database: MLflow's own default
    depends on the working directory.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found
    database = database_path(uri)
    location = None
    if database is not None:
        folder = re.sub(r"[^\w.-]", "_", name)
        location = (database.parent / "mlartifacts" / folder).as_uri()
    try:
        created = client.create_experiment(name, artifact_location=location)
    except MlflowException:
        # Another sweep may have been quicker.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found
    return client.get_experiment(created)
