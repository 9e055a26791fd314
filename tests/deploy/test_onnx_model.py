"""Static points as ONNX, run by another runtime; what decides by the image is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from exported_bundle import Exported
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.datasets import to_float
from runtime_pruning.deploy import load_bundle, read_network_bundle, write_bundle
from runtime_pruning.deploy.card import write_card
from runtime_pruning.deploy.onnx_model import save_onnx
from runtime_pruning.deploy.shipped import ShippedBundle
from runtime_pruning.errors import ConfigError


@pytest.mark.parametrize("stop", [0, 2])
def test_another_runtime_answers_as_the_bundle(
    exported: Exported, tmp_path: Path, stop: int
) -> None:
    shipped = ShippedBundle(exported.folder, replace(exported.card, chosen=stop))
    path = tmp_path / "point.onnx"
    save_onnx(shipped, path, batch=4)
    session = onnxruntime.InferenceSession(path)
    images_BCHW = to_float(exported.data.test.images_NCHW[:4])
    (logits,) = session.run(["logits"], {"images": images_BCHW.numpy()})
    expected = shipped.runner(stop)(images_BCHW).logits_BK
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(exported.card.classes)
    narrow = path.stat().st_size
    assert (narrow < 35_000) == (stop == 0)  # only the channels of the plan are in the file


def test_what_onnx_cannot_say_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "bundle")
    network = read_network_bundle(folder).network
    config = DecisionConfig(feature_widths=network.feature_widths, groups=2, encoder=4, hidden=4)
    policy = DecisionPolicy(DecisionNetwork(config), penalty=0.3)
    write_bundle(folder, network, policy, backbone="digits-cnn", align=4)
    write_card(folder, exported.card)
    looking = load_bundle(folder, check=False)
    with pytest.raises(ConfigError, match=r"decides image by image \(decision network"):
        save_onnx(looking, tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="`batch >= 1` must hold, but got 0"):
        save_onnx(looking, tmp_path / "x.onnx", batch=0)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
