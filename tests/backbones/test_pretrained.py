"""The published weights: every tensor loaded, and real pictures recognised."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runtime_pruning import backbones, datasets

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RUNTIME_PRUNING_DATA") or ROOT.parent / "shared" / "data")
WEIGHTS = Path(os.environ.get("RUNTIME_PRUNING_WEIGHTS") or ROOT.parent / "shared" / "weights")

pytestmark = pytest.mark.skipif(
    not (WEIGHTS / "cifar10-resnet20.safetensors").is_file(),
    reason="needs the safetensors files in RUNTIME_PRUNING_WEIGHTS",
)


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_every_published_tensor_is_loaded_bit_for_bit(depth: int) -> None:
    backbone = backbones.create(
        f"resnet{depth}-cifar",
        num_classes=10,
        image_shape=(3, 32, 32),
        weights_dir=WEIGHTS,
        pretrained=True,
    )
    published = load_file(WEIGHTS / f"cifar10-resnet{depth}.safetensors")
    state = backbone.state_dict()
    assert set(published) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, tensor in published.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.skipif(
    not (DATA / "cifar10-test.parquet").is_file(),
    reason="needs the Parquet files in RUNTIME_PRUNING_DATA",
)
def test_resnet20_recognises_unseen_pictures() -> None:
    test = datasets.load("cifar10", DATA).test.head(500)
    backbone = backbones.create(
        "resnet20-cifar",
        num_classes=10,
        image_shape=(3, 32, 32),
        weights_dir=WEIGHTS,
        pretrained=True,
    ).eval()
    with torch.inference_mode():
        predictions_N = backbone(datasets.to_float(test.images_NCHW)).argmax(-1).numpy()
    # 91.73 % of 10,000; three standard errors of 500 draws are 3.7 points.
    assert np.mean(predictions_N == test.labels_N) > 0.88
