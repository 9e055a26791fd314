"""Every built-in backbone, torchvision's families, and shapes that only small nets have."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from runtime_pruning import backbones
from runtime_pruning.cost.macs import plan_macs
from runtime_pruning.network import trace
from runtime_pruning.network.staged_run import MODES
from runtime_pruning.testing.network import PrunableNetworkContract, close

IMAGE_SHAPES = {"digits-cnn": (1, 8, 8)}
BUILT_IN = ["digits-cnn", "mcifarnet", "resnet20-cifar", "resnet32-cifar", "resnet56-cifar"]


class TestDigitsCnn(PrunableNetworkContract):
    backbone_name = "digits-cnn"
    image_shape = (1, 8, 8)


class TestClutteredDigitsCnn(PrunableNetworkContract):
    backbone_name = "cluttered-digits-cnn"
    image_shape = (1, 16, 16)


class TestMCifarNet(PrunableNetworkContract):
    backbone_name = "mcifarnet"
    image_shape = (3, 16, 16)


class TestResNet20(PrunableNetworkContract):
    backbone_name = "resnet20-cifar"
    image_shape = (3, 16, 16)


class TestResNet20WithWholeStreams(PrunableNetworkContract):
    backbone_name = "resnet20-cifar"
    image_shape = (3, 16, 16)
    streams = False


class TestVgg(PrunableNetworkContract):
    def create(self) -> nn.Module:
        layers = models.vgg.make_layers([16, "M", 32, "M", 64, 64, "M"], batch_norm=True)
        backbone = models.VGG(layers, num_classes=10, init_weights=False)
        # The published head holds 120 M weights; two small layers are traced the same way.
        backbone.classifier = nn.Sequential(
            nn.Linear(64 * 7 * 7, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)
        )
        return backbone


class TestBasicBlocks(PrunableNetworkContract):
    image_shape = (3, 16, 16)

    def create(self) -> nn.Module:
        return models.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=10)


class TestBottlenecks(PrunableNetworkContract):
    image_shape = (3, 16, 16)

    def create(self) -> nn.Module:
        return models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=10)


class TestMobileNetV2(PrunableNetworkContract):
    image_shape = (3, 16, 16)

    def create(self) -> nn.Module:
        return models.mobilenet_v2(weights=None, num_classes=10)


class Peculiar(nn.Module):
    """What families rarely do: biases, widening depthwise, PReLU, two heads on one value,
    narrow parts added, a size-dependent view, reflected padding, a convolution as classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect")
        self.slopes = nn.PReLU(12)
        self.widen = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.norm = nn.BatchNorm2d(24)
        self.left = nn.Conv2d(24, 16, 3, stride=2, padding=1)
        self.right = nn.Conv2d(24, 16, 3, stride=2, padding=1)
        self.after = nn.BatchNorm2d(16)
        self.hidden = nn.Linear(16 * 4 * 4, 20)
        self.norm1d = nn.BatchNorm1d(20)
        self.last = nn.Linear(20, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.first(images * 2 - 1))
        x = self.norm(self.widen(self.slopes(self.conv1(x))))
        left, right = self.left(x), self.right(nn.functional.silu(x))
        x = (self.after(left + right) + 0.5).sigmoid()
        x = nn.functional.max_pool2d(x, 2)
        x = x.view(x.size(0), -1)
        return self.last(torch.relu(self.norm1d(self.hidden(x))))


class TestPeculiar(PrunableNetworkContract):
    image_shape = (3, 16, 16)

    def create(self) -> nn.Module:
        return Peculiar()


class TestThreeGroups(TestPeculiar):
    groups = 3


class TestStatisticsPerWidth(TestPeculiar):
    conditioned = True


class TestStatisticsPerWidthInABranch(TestResNet20):
    conditioned = True


class TestStatisticsPerWidthInAChain(TestDigitsCnn):
    conditioned = True


@pytest.mark.parametrize(("name", "sites"), [("vgg11_bn", 7), ("resnet50", 48)])
@torch.no_grad()
def test_published_models_run_at_any_width(name: str, sites: int) -> None:
    network = trace(getattr(models, name)(weights=None), (3, 32, 32)).eval()
    assert len(network.sites) == sites
    images_BCHW, groups_BL = torch.rand(2, 3, 32, 32), torch.randint(1, 5, (2, sites))
    sliced, masked = (network.run(images_BCHW, groups_BL, mode=mode) for mode in MODES)
    close(sliced.logits_BK, masked.logits_BK)
    assert torch.equal(sliced.executed_macs_B, plan_macs(network, sliced.channels_BL))


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_built_in_backbone_is_prunable(name: str) -> None:
    shape: Any = IMAGE_SHAPES.get(name, (3, 32, 32))
    network = trace(backbones.create(name, num_classes=10, image_shape=shape), shape)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(network.sites) == len(convs) - 1


def test_no_built_in_backbone_is_left_out() -> None:
    assert set(BUILT_IN) <= set(backbones.names())
