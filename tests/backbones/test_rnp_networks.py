"""The RNP paper's small networks: sizes worked out by hand, sites, and that they run pruned."""

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace

SHAPE = (3, 32, 32)


def traced(name: str, num_classes: int) -> PrunableNetwork:
    backbone = backbones.create(name, num_classes=num_classes, image_shape=SHAPE)
    return trace(backbone, SHAPE, groups=4).eval()


def test_faces_cnn_by_hand() -> None:
    # 3 * 32 * 9 on 32x32, 32 * 32 * 9 on 16x16, 32 * 64 * 9 on 8x8; 64 * 4 * 4 values, 64, 3.
    convs = 864 * 1_024 + 9_216 * 256 + 18_432 * 64
    network = traced("faces-cnn", 3)
    assert dense_macs(network) == convs + 1_024 * 64 + 64 * 3 == 4_489_408
    assert [site.channels for site in network.sites] == [32, 64]


def test_rnp_cifar_by_hand() -> None:
    # 3 * 64 * 9 and 64 * 64 * 9 on 32x32, 64 * 128 * 9 and 128 * 128 * 9 on 16x16; 128, 100.
    convs = (1_728 + 36_864) * 1_024 + (73_728 + 147_456) * 256
    network = traced("rnp-cifar", 100)
    assert dense_macs(network) == convs + 128 * 100 == 96_154_112
    assert [site.channels for site in network.sites] == [64, 128, 128]


@pytest.mark.parametrize("name", ["faces-cnn", "rnp-cifar"])
def test_sliced_equals_masked_and_the_full_plan_the_backbone(name: str) -> None:
    network = traced(name, 5)
    images_BCHW = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    size = (6, len(network.sites))
    plans_BL = torch.randint(1, 5, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        sliced, masked = (network.run(images_BCHW, plans_BL, mode=m) for m in ("sliced", "masked"))
        whole = network.run(images_BCHW, torch.full_like(plans_BL, 4), mode="sliced")
        torch.testing.assert_close(sliced.logits_BK, masked.logits_BK, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole.logits_BK, network.backbone(images_BCHW))


def test_they_take_other_colours_and_sizes() -> None:
    for name in ("faces-cnn", "rnp-cifar"):
        backbone = backbones.create(name, num_classes=4, image_shape=(1, 20, 9))
        assert backbone(torch.rand(2, 1, 20, 9)).shape == (2, 4)
    with pytest.raises(ConfigError, match=r"8x8 pixels or more, but got \(3, 7, 32\)"):
        backbones.create("faces-cnn", num_classes=4, image_shape=(3, 7, 32))
