"""Serving by MLflow's own format, over HTTP on this machine: answers, refusals, and it lives on."""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from PIL import Image

from exported_bundle import Exported
from runtime_pruning.deploy.mlflow_model import save_model
from runtime_pruning.deploy.model_server import server_of
from runtime_pruning.deploy.requests import MOST_BYTES, MOST_IMAGES
from runtime_pruning.deploy.shipped import load_bundle
from runtime_pruning.errors import ConfigError

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def model(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    save_model(exported.folder, folder)
    return folder


@pytest.fixture(scope="module")
def port(model: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    server = server_of(model, host="127.0.0.1", port=number)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield number
    server.should_exit = True
    thread.join()


def post(port: int, body: Any, headers: dict[str, str] = JSON) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/invocations", body, headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()
    finally:
        connection.close()


def encoded(exported: Exported, number: int) -> str:
    buffer = BytesIO()
    Image.fromarray(exported.data.test.images_NCHW[number, 0]).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def request(*images: str, **params: Any) -> str:
    rows = {"columns": ["image"], "data": [[image] for image in images]}
    return json.dumps({"dataframe_split": rows, **({"params": params} if params else {})})


def test_it_answers_as_the_bundle_does(exported: Exported, port: int) -> None:
    images = [encoded(exported, number) for number in range(12)]
    shipped = load_bundle(exported.folder)
    for params in ({}, {"budget": "macs=9e4"}):
        status, text = post(port, request(*images, **params))
        assert status == 200, text
        answers = json.loads(text)["predictions"]
        sources = [base64.b64decode(image) for image in images]
        found = shipped.predict(sources, params.get("budget"))
        assert [each["label"] for each in answers] == found.labels
        assert [each["macs"] for each in answers] == found.macs_B.tolist()
        assert answers[0]["probability"] == pytest.approx(float(found.probabilities_BK[0].max()))
        assert len(answers[0]["likeliest"]) == 5
        assert answers[0]["macs_fraction"] == answers[0]["macs"] / exported.card.dense_macs


def test_what_cannot_be_used_is_a_4xx_with_a_sentence_and_the_server_lives_on(
    exported: Exported, port: int
) -> None:
    good = encoded(exported, 0)
    damaged = base64.b64encode(base64.b64decode(good)[:40]).decode()
    text = base64.b64encode(b"no image").decode()
    line = BytesIO()
    Image.new("L", (4000, 1)).save(line, format="PNG")
    bodies = {
        request(damaged): "Image 0 must be an image",
        request(good, text): "Image 1 must be an image",
        request(base64.b64encode(line.getvalue()).decode()): "at most 100 times its shorter",
        request(good, budget="macs=1"): "`macs >= ",
        request(good, budget="macs=-5"): "`0 < macs < inf` must hold",
        request(good, budget="everything"): "A budget is macs=NUMBER",
        request(good, budget=[1]): "budget",
        request(*[good] * (MOST_IMAGES + 1)): f"`1 <= images <= {MOST_IMAGES}` must hold",
        request(): "",
        json.dumps({"dataframe_split": {"columns": ["pixels"], "data": [[1]]}}): "image",
        json.dumps({"inputs": [[1, 2]]}): "",
        "{": "",
        "": "",
    }
    for body, sentence in bodies.items():
        status, told = post(port, body)
        assert 400 <= status < 500, (body[:200], told)
        assert sentence in told
        if sentence.startswith(("`", "Image", "at", "A ")):
            message = json.loads(told)["message"]
            assert message.count("\n") == 0
            assert len(message) < 300
        assert post(port, request(good))[0] == 200
    assert post(port, "x", {"content-type": "text/html"})[0] == 415


def test_an_oversized_body_is_refused_before_it_is_read(exported: Exported, port: int) -> None:
    stated = {**JSON, "content-length": str(MOST_BYTES + 1)}
    status, told = post(port, b"", stated)
    assert (status, told) == (
        413,
        f"A request may hold {MOST_BYTES:,} bytes, but this one has {MOST_BYTES + 1:,}.",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
        assert b" 411 " in connection.recv(1000)
    assert post(port, request(encoded(exported, 0)))[0] == 200


def test_the_model_is_mlflows_own_and_holds_no_pickle(model: Path, exported: Exported) -> None:
    loaded = mlflow.pyfunc.load_model(str(model))
    signature = loaded.metadata.signature
    assert [column.name for column in signature.inputs] == ["image"]
    assert [(each.name, each.default) for each in signature.params] == [("budget", "")]
    assert [path for path in model.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt")] == []
    assert (model / "artifacts" / "bundle" / "card.json").is_file()


def test_a_taken_port_and_a_filled_folder_are_refused(
    model: Path, port: int, exported: Exported
) -> None:
    with pytest.raises(ConfigError, match=f"Port {port} of 127"):
        server_of(model, host="127.0.0.1", port=port)
    with pytest.raises(ConfigError, match="must be empty"):
        save_model(exported.folder, model)
