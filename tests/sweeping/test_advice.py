"""A sweep's last words name the store that it wrote to."""

from pathlib import Path

import pytest

from runtime_pruning.sweeping.advice import where_to_look, without_password

VIEW = "/#/experiments/1"
HOME, SHARED = Path("/checkout/results"), Path("/shared/my results")


@pytest.mark.parametrize(
    ("uri", "results", "submitted", "told"),
    [
        (f"sqlite:///{HOME}/mlflow.db", HOME, False, "In MLflow: make ui\n"),
        (
            f"sqlite:///{SHARED}/mlflow.db",
            SHARED,
            False,
            "In MLflow: RUNTIME_PRUNING_RESULTS='/shared/my results' make ui\n",
        ),
        (
            f"sqlite:///{SHARED}/mlflow.db",
            SHARED,
            True,
            "make ui, in a checkout on a machine that sees this folder\n",
        ),
        (
            "sqlite:////elsewhere/runs.db",
            HOME,
            False,
            "In MLflow: MLFLOW_TRACKING_URI=sqlite:////elsewhere/runs.db make ui\n",
        ),
        ("postgresql://me:secret@db/runs", HOME, False, "='postgresql://me:***@db/runs' make ui\n"),
    ],
)
def test_a_store_without_a_server_is_served_by_a_command(
    uri: str, results: Path, submitted: bool, told: str
) -> None:
    said = where_to_look(uri, results, VIEW, usual_results=HOME, submitted=submitted)
    assert told in said
    assert said.endswith(f"then http://127.0.0.1:5000{VIEW}")


@pytest.mark.parametrize("submitted", [False, True])
def test_a_server_is_named_with_the_view(submitted: bool) -> None:
    said = where_to_look(
        "https://me:secret@mlflow.example/", HOME, VIEW, usual_results=HOME, submitted=submitted
    )
    assert said == f"In MLflow: https://me:***@mlflow.example{VIEW}"


def test_without_a_view_the_store_is_still_named() -> None:
    said = where_to_look("http://m:5000", HOME, None, usual_results=HOME, submitted=False)
    assert said == "In MLflow: http://m:5000"


def test_an_address_without_a_password_stays() -> None:
    for uri in ("http://m:5000", "sqlite:////a@b:c/d.db", "postgresql://me@db:5432/runs"):
        assert without_password(uri) == uri
