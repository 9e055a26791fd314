"""What servers have in common: requests are checked, answers are told, whoever carries them.

A request is a JSON object: ``images`` holds encoded images (JPEG, PNG, ...) in base64, and it may
have a ``budget``. An answer holds, per image, label, probability, the likeliest classes, and
compute spent.

Dimensions: B images, C channels, H W pixels.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from runtime_pruning.deploy.images import prepare
from runtime_pruning.deploy.shipped import Prediction, ShippedBundle
from runtime_pruning.errors import DataError

MOST_BYTES = 32 * 2**20  # of a request's body
MOST_IMAGES = 256  # of a request
LIKELIEST = 5  # classes that are told

Answers = list[dict[str, Any]]


class Asked(NamedTuple):
    """What a request asks for."""

    images_BCHW: Tensor
    position: float | None  # of the dial; None is the exported point


def parse(body: bytes, shipped: ShippedBundle) -> Asked:
    """Return what a request's body asks for.

    Raises:
        DataError: it is no such JSON object, or holds what is no image.
        ConfigError: a budget that the bundle cannot keep to.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"A request must be JSON: {error}.") from error
    if not isinstance(request, dict) or not isinstance(request.get("images"), list):
        raise DataError('A request must be {"images": [base64, ...], "budget": text}.')
    unknown = sorted(set(request) - {"images", "budget"})
    if unknown:
        raise DataError(f"A request holds `images` and `budget` only, but got {unknown}.")
    images = [_decoded(number, text) for number, text in enumerate(request["images"])]
    return asked(images, request.get("budget"), shipped)


def asked(images: Sequence[bytes], budget: object, shipped: ShippedBundle) -> Asked:
    """Return encoded images and a budget, checked.

    Raises:
        DataError: none or too many images, or what is none.
        ConfigError: a budget that the bundle cannot keep to.
    """
    if not 1 <= len(images) <= MOST_IMAGES:
        raise DataError(
            f"`1 <= images <= {MOST_IMAGES}` must hold in a request, but got {len(images)}."
        )
    if budget is not None and not isinstance(budget, str):
        raise DataError(f"A budget is a text such as 'macs=2e7', but got {budget!r:.40}.")
    position = shipped.position(budget) if budget else None
    return Asked(prepare(list(images), shipped.card.preprocessing), position)


def told(found: Prediction, dense_macs: int) -> Answers:
    """Return a prediction as plain values, one object per image.

    Args:
        found: of the images.
        dense_macs: MACs of the unpruned backbone on one image.
    """
    shares_BT, classes_BT = found.probabilities_BK.topk(min(LIKELIEST, len(found.classes)), dim=1)
    return [
        {
            "label": found.classes[classes[0]],
            "probability": shares[0],
            "likeliest": {
                found.classes[number]: share for number, share in zip(classes, shares, strict=True)
            },
            "macs": macs,
            "macs_fraction": macs / dense_macs,
        }
        for classes, shares, macs in zip(
            classes_BT.tolist(), shares_BT.tolist(), found.macs_B.tolist(), strict=True
        )
    ]


def _decoded(number: int, text: object) -> bytes:
    """Return the bytes of one image of a request."""
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"Image {number} must be base64: {error}.") from error
