"""Requests and answers, whoever carries them."""

import base64
import json
from io import BytesIO

import pytest
import torch
from PIL import Image

from exported_bundle import Exported
from runtime_pruning.deploy.requests import parse, told
from runtime_pruning.deploy.shipped import Prediction, ShippedBundle, load_bundle
from runtime_pruning.errors import UserError


@pytest.fixture(scope="module")
def shipped(exported: Exported) -> ShippedBundle:
    return load_bundle(exported.folder)


def image(exported: Exported, number: int = 0) -> str:
    buffer = BytesIO()
    Image.fromarray(exported.data.test.images_NCHW[number, 0]).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_request_is_read(exported: Exported, shipped: ShippedBundle) -> None:
    images = [image(exported, number) for number in range(3)]
    plain = parse(json.dumps({"images": images}).encode(), shipped)
    assert plain.images_BCHW.shape == (3, 1, 8, 8)
    assert plain.position is None
    told_of = parse(json.dumps({"images": images, "budget": "penalty=0.8"}).encode(), shipped)
    assert told_of.position == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff", "A request must be JSON"),
        (b"[" * 100_000, "A request must be JSON"),
        (b"[]", "A request must be {"),
        (b'{"images": "x"}', "A request must be {"),
        (b'{"images": []}', "`1 <= images <= 256` must hold in a request, but got 0"),
        (b'{"images": ["*"]}', "Image 0 must be base64"),
        (b'{"images": [3]}', "Image 0 must be base64"),
        (b'{"images": ["aGVsbG8="]}', "Image 0 must be an image"),
        (b'{"images": ["IMAGE"], "bugdet": 3}', r"but got \['bugdet'\]"),
        (b'{"images": ["IMAGE"], "budget": 3}', "A budget is a text such as"),
    ],
)
def test_a_bad_request_is_refused(
    exported: Exported, shipped: ShippedBundle, body: bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse(body.replace(b"IMAGE", image(exported).encode()), shipped)


def test_answers_are_plain() -> None:
    found = Prediction(
        ("a", "b"), torch.tensor([[0.25, 0.75]]), torch.tensor([30]), torch.tensor([0])
    )
    assert told(found, 120) == [
        {
            "label": "b",
            "probability": 0.75,
            "likeliest": {"b": 0.75, "a": 0.25},
            "macs": 30,
            "macs_fraction": 0.25,
        }
    ]
