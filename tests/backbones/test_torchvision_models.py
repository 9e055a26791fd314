"""torchvision's families: same weights under the same names, traceable, strictly loaded."""

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
from torchvision import models

from runtime_pruning import backbones
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.network import trace

SMALL = (3, 64, 64)
# All convolutions but the first one and the 1x1 shortcuts (3 in ResNet-18 and 34, 4 in ResNet-50),
# and in MobileNetV2 but the 17 depthwise ones: 52 - 17 - 1.
SITES = {"resnet18": 16, "resnet34": 32, "resnet50": 48, "mobilenet_v2": 34}


def create(name: str, **settings: Any) -> nn.Module:
    return backbones.create(name, num_classes=10, image_shape=SMALL, **settings)


@pytest.mark.parametrize("name", sorted(SITES))
@torch.no_grad()
def test_it_is_torchvisions_network_on_normalised_pixels(name: str) -> None:
    backbone = create(name, seed=3).eval()
    plain = getattr(models, name)(weights=None, num_classes=10).eval()
    assert list(backbone.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(backbone.state_dict(), strict=True)
    assert isinstance(next(iter(backbone.children())), backbones.Normalise)
    images_BCHW = torch.rand(2, *SMALL)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected_BK = plain((images_BCHW - mean) / std)
    torch.testing.assert_close(backbone(images_BCHW), expected_BK)
    network = trace(backbone, SMALL, groups=4)
    assert len(network.sites) == SITES[name]
    plans_BL = torch.randint(1, 5, (2, SITES[name]), generator=torch.Generator().manual_seed(0))
    sliced, masked = (network.run(images_BCHW, plans_BL, mode=m) for m in ("sliced", "masked"))
    torch.testing.assert_close(sliced.logits_BK, masked.logits_BK, rtol=1e-3, atol=1e-5)
    full_BL = torch.full_like(plans_BL, 4)
    torch.testing.assert_close(network.run(images_BCHW, full_BL).logits_BK, expected_BK)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg16_traces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing 120 M weights takes seconds and tells nothing.
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda weight, **_: weight)
    monkeypatch.setattr(nn.init, "normal_", lambda weight, *_: weight)
    with torch.device("meta"):
        expected = getattr(models, name)(weights=None, num_classes=10).state_dict()
    backbone = create(name)
    assert {key: t.shape for key, t in backbone.state_dict().items()} == {
        key: t.shape for key, t in expected.items()
    }
    network = trace(backbone, SMALL, groups=4)
    assert [site.channels for site in network.sites] == [64, *[128] * 2, *[256] * 3, *[512] * 6]
    assert network.sites[0].bounds == (0, 16, 32, 48, 64)


def test_grey_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="'resnet18' takes images of 3 channels, but got 1"):
        backbones.create("resnet18", num_classes=10, image_shape=(1, 64, 64))


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
