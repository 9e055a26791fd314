"""What a finished sweep says of where to look at it, which depends on where it ran."""

import re
import shlex
from pathlib import Path

from runtime_pruning.tracking.storage import database_path


def where_to_look(
    uri: str, results: Path, page_path: str | None, *, usual_results: Path, submitted: bool
) -> str:
    """Return how to open a sweep in MLflow: an address, or the command that serves one.

    Args:
        uri: of the store, as :func:`~runtime_pruning.tracking.storage.resolve_uri` gives it.
        results: the folder that all sweeps' results are in.
        page_path: of the sweep's page in MLflow, behind the server's address; None is unknown.
        usual_results: the folder that `make ui` looks at without being told.
        submitted: whether this is a submitted job, which nobody has a terminal beside.
    """
    if uri.startswith("http"):
        return f"In MLflow: {without_password(uri).rstrip('/')}{page_path or ''}"
    setting = ""
    if database_path(uri) != results / "mlflow.db":
        setting = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} "
    elif submitted or results != usual_results:
        setting = f"RUNTIME_PRUNING_RESULTS={shlex.quote(str(results))} "
    place = ", in a checkout on a machine that sees this folder" if submitted else ""
    page = f"\n  then http://127.0.0.1:5000{page_path}" if page_path else ""
    return f"In MLflow: {setting}make ui{place}{page}"


def without_password(uri: str) -> str:
    """Return an address with stars in place of its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)
