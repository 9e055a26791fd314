"""A static operating point as an ONNX file, for runtimes without PyTorch.

ONNX holds one fixed computation: a point whose plan is the same for every image can be written,
sliced weights and all; a policy that looks at the image cannot, and is refused by name.

Dimensions: B images, L sites.
"""

import importlib.util
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from runtime_pruning.deploy.bundle import Bundle
from runtime_pruning.deploy.card import Card
from runtime_pruning.deploy.shipped import ShippedBundle
from runtime_pruning.errors import ConfigError
from runtime_pruning.files import replacing
from runtime_pruning.network.policies import FixedPolicy

NEEDED = ("onnx", "onnxscript")


def save_onnx(shipped: ShippedBundle, path: Path, *, batch: int = 1) -> None:
    """Write the exported point of a bundle as ONNX.

    The input ``images`` is float32 in [0, 1] of shape (B, C, H, W), the output ``logits`` of shape
    (B, K); classes, temperature and preprocessing are in the file's metadata.

    Args:
        shipped: the bundle.
        path: of the file.
        batch: B, the same in every call of the file.

    Raises:
        ConfigError: the point decides image by image, B is below 1, or what writes ONNX is not
            installed.
    """
    if batch < 1:
        raise ConfigError(f"`batch >= 1` must hold, but got {batch}.")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"Writing ONNX needs {' and '.join(missing)}: install them with pip.")
    plan_1L, bundle = _plan(shipped)
    images_BCHW = torch.zeros(batch, *bundle.image_shape)

    def logits(images_BCHW: Tensor) -> Tensor:
        return bundle.network.run(images_BCHW, plan_1L.expand(batch, -1)).logits_BK

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of its own calls
        graph = make_fx(logits)(images_BCHW).eval()
        program = torch.onnx.export(
            graph,
            (images_BCHW,),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(_facts(shipped.card))
        with replacing(path) as unfinished:
            program.save(str(unfinished))


def _plan(shipped: ShippedBundle) -> tuple[Tensor, Bundle]:
    """Return the one plan of a bundle, and the network that runs it."""
    bundle = shipped.bundle()
    if not isinstance(bundle, Bundle):
        raise ConfigError(
            "ONNX holds one fixed computation, but this point is a cascade, which decides image by "
            "image how far to go: run it by `load_bundle`, or export its members."
        )
    if not isinstance(bundle.policy, FixedPolicy):
        raise ConfigError(
            "ONNX holds one fixed computation, but this point's policy decides image by image "
            f"({bundle.policy.name}): run it by `load_bundle`, or export a static point."
        )
    return bundle.policy.groups_L[None], bundle


def _facts(card: Card) -> dict[str, str]:
    return {
        "classes": json.dumps(card.classes),
        "temperature": str(card.temperature),
        "input": f"{card.preprocessing.colour}, {card.preprocessing.fit}, float32 in [0, 1]",
        "point_id": card.stop.point_id,
    }
