"""Ray Serve's replica, without Ray: requests that come together are answered together."""

import base64
import json
from io import BytesIO

from PIL import Image

from exported_bundle import Exported
from runtime_pruning.deploy.ray_serve import BundleServer
from runtime_pruning.deploy.requests import parse
from runtime_pruning.deploy.shipped import load_bundle


def body(exported: Exported, number: int, budget: str | None = None) -> bytes:
    buffer = BytesIO()
    Image.fromarray(exported.data.test.images_NCHW[number, 0]).save(buffer, format="PNG")
    request: dict[str, object] = {"images": [base64.b64encode(buffer.getvalue()).decode()]}
    return json.dumps({**request, **({"budget": budget} if budget else {})}).encode()


def test_requests_at_one_position_are_one_batch(exported: Exported) -> None:
    server, shipped = BundleServer(str(exported.folder)), load_bundle(exported.folder)
    budgets = [None, "macs=9e4", None, "penalty=0.8", "macs=9e4"]
    requests = [
        parse(body(exported, number, budget), shipped) for number, budget in enumerate(budgets)
    ]
    together = server.answer_all(requests)
    assert together == [server.answer_all([request])[0] for request in requests]
    assert together[3][0]["macs"] == exported.card.stops[0].macs_per_image[1]
