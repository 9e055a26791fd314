"""Where runs are stored: addresses, what does not answer, and the artifacts' folder."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.tracking.storage import (
    StoreUnavailableError,
    check_alive,
    database_path,
    find_or_create_experiment,
    open_store,
    resolve_uri,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def test_the_stores_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///a/b.db", tmp_path) == f"sqlite:///{tmp_path}/a/b.db"
    assert resolve_uri("sqlite:////a/b.db", tmp_path) == "sqlite:////a/b.db"
    assert resolve_uri("http://host:5000", tmp_path) == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://host/db")
    assert resolve_uri(None, tmp_path) == "postgresql+psycopg2://host/db"
    with pytest.raises(ConfigError, match="but got 'mlruns'"):
        resolve_uri("mlruns", tmp_path)


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A server's address, and the status that it answers with, which may be changed."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", status
    server.shutdown()
    server.server_close()


def test_a_server_that_is_ill_is_told_from_one_that_asks_for_a_login(
    answering: tuple[str, list[int]],
) -> None:
    uri, status = answering
    check_alive(uri)
    status[0] = 401
    check_alive(uri)
    status[0] = 503
    with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:\d+/ answers 503"):
        check_alive(uri)


def test_where_nobody_listens_no_store_is_opened() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(StoreUnavailableError, match=f"No MLflow server answers at .*:{port}"):
        open_store(f"http://127.0.0.1:{port}")


def test_artifacts_lie_beside_the_database(uri: str, tmp_path: Path) -> None:
    assert database_path(uri) == tmp_path / "mlflow.db"
    assert database_path("http://host") is None
    client = open_store(uri)
    made = find_or_create_experiment(client, uri, "a/b c")
    assert made.artifact_location == (tmp_path / "mlartifacts" / "a_b_c").as_uri()
    assert find_or_create_experiment(client, uri, "a/b c").experiment_id == made.experiment_id
