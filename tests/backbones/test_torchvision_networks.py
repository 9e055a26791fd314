"""torchvision's networks: the same weights under the same names, traceable."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from runtime_pruning import backbones
from runtime_pruning.errors import ConfigError
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
