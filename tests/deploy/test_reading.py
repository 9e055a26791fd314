"""A bundle is read as what it is: a network under a policy, or a cascade of some."""

import json
from pathlib import Path

import pytest

from runtime_pruning import backbones
from runtime_pruning.deploy import Bundle, read_bundle, write_bundle
from runtime_pruning.errors import DataError
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    network = trace(backbone, (1, 8, 8), groups=2, align=4).eval()
    policy = FixedPolicy(network.uniform(1))
    write_bundle(tmp_path / "bundle", network, policy, backbone="digits-cnn", align=4)
    return tmp_path / "bundle"


def test_a_network_is_read_in_evaluation_mode(folder: Path) -> None:
    bundle = read_bundle(folder)
    assert isinstance(bundle, Bundle)
    assert not bundle.network.training
    assert bundle.image_shape == (1, 8, 8)


def test_a_bundle_that_says_it_is_something_else_is_damaged(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "cascade"}))
    with pytest.raises(DataError, match="checksum differs"):
        read_bundle(folder)


def test_a_folder_without_a_manifest_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"A bundle holds a manifest\.json, but .* has none"):
        read_bundle(tmp_path)
