"""MLflow's model server on this machine, with a bound on what a request may weigh."""

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import uvicorn
from mlflow.pyfunc import scoring_server

from runtime_pruning.deploy.requests import MOST_BYTES
from runtime_pruning.errors import ConfigError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimit:
    """Refuses a request by the length that it states, before any of it is read.

    Args:
        app: an ASGI application.
        most: bytes of a body.
    """

    def __init__(self, app: Any, most: int = MOST_BYTES) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer 413 or 411, or hand the request on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if not stated.isdigit():
            await _refuse(send, 411, "A request must state its Content-Length.")
        elif int(stated) > self._most:
            told = f"A request may hold {self._most:,} bytes, but this one has {int(stated):,}."
            await _refuse(send, 413, told)
        else:
            await self._app(scope, receive, send)


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def server_of(model: Path, *, host: str, port: int) -> uvicorn.Server:
    """Return MLflow's server of a model, which listens once it is run.

    Raises:
        ConfigError: the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of {host} cannot be listened at ({error}): name another by --port."
            ) from error
    app = scoring_server.init(mlflow.pyfunc.load_model(str(model)))
    settings = uvicorn.Config(BodyLimit(app), host=host, port=port, log_level="warning")
    return uvicorn.Server(settings)
