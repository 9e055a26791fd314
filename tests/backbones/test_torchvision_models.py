"""torchvision's weights: from a local file or its own cache, strictly loaded; imported late."""

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.errors import DataError

SMALL = (3, 64, 64)


def create(name: str, **settings: Any) -> nn.Module:
    return backbones.create(name, num_classes=10, image_shape=SMALL, **settings)


@pytest.mark.parametrize("file", ["mobilenet_v2.safetensors", "mobilenet_v2-b0353104.pth"])
def test_weights_come_from_a_local_file_by_either_name(file: str, tmp_path: Path) -> None:
    origin = create("mobilenet_v2", seed=9).state_dict()
    save_file(origin, tmp_path / file) if file.endswith("s") else torch.save(
        origin, tmp_path / file
    )
    loaded = create("mobilenet_v2", weights_dir=tmp_path, pretrained=True)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, origin[name]), name


def test_without_a_file_torchvision_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In torchvision's own cache: what an earlier download left.
    origin = create("mobilenet_v2", seed=9).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(origin, tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("RUNTIME_PRUNING_WEIGHTS", raising=False)
    loaded = create("mobilenet_v2", pretrained=True)
    assert torch.equal(loaded.state_dict()["classifier.1.bias"], origin["classifier.1.bias"])


def test_a_download_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(DataError, match=r"'resnet18' cannot be downloaded.*set RUNTIME_PRUNING_W"):
        create("resnet18", pretrained=True)


def test_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    other = backbones.create("mobilenet_v2", num_classes=5, image_shape=SMALL)
    save_file(other.state_dict(), tmp_path / "mobilenet_v2.safetensors")
    with pytest.raises(DataError, match=r"do not fit: .*size mismatch for classifier\.1\.weight"):
        create("mobilenet_v2", weights_dir=tmp_path, pretrained=True)


def test_who_builds_none_of_them_does_not_wait_for_torchvision() -> None:
    told = "import sys, runtime_pruning.backbones; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
