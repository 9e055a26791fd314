"""MACs of small nets by hand, and of the dense backbone by torch's own counter."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from runtime_pruning import backbones
from runtime_pruning.cost.macs import MacStepCost, dense_macs, plan_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import trace


class Small(nn.Module):
    """3 -> 4 channels on 4x4, a site of 8 on 2x2, depthwise, a site of 6, linear on 6 x 2x2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)  # 3*4*9*16 = 1,728
        self.conv1 = nn.Conv2d(4, 8, 3, stride=2, padding=1)  # 4*9*4 = 144 per channel
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)  # 9*4 = 36 per channel
        self.conv2 = nn.Conv2d(8, 6, 1)  # 4 per pair of channels
        self.linear = nn.Linear(24, 10)  # 4*10 = 40 per channel

    def forward(self, images: Tensor) -> Tensor:
        x = self.depthwise(self.conv1(self.first(images)).relu())
        return self.linear(torch.flatten(self.conv2(x), 1))


NETWORK = trace(Small(), (3, 4, 4), groups=2, align=2)


def test_a_small_net_by_hand() -> None:
    assert dense_macs(NETWORK) == 1_728 + 144 * 8 + 36 * 8 + 4 * 8 * 6 + 40 * 6
    assert dense_macs(NETWORK) == 3_600
    channels_BL = torch.tensor([[8, 6], [4, 6], [4, 2]])
    expected = [3_600, 1_728 + 576 + 144 + 96 + 240, 1_728 + 576 + 144 + 32 + 80]
    assert plan_macs(NETWORK, channels_BL).tolist() == expected == [3_600, 2_784, 2_560]


@pytest.mark.parametrize("groups", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_what_is_executed_on_the_small_net_is_that(groups: tuple[int, int]) -> None:
    execution = NETWORK.run(torch.rand(1, 3, 4, 4), torch.tensor([groups]))
    channels = (4 * groups[0], {1: 4, 2: 6}[groups[1]])
    by_hand = 1_728 + channels[0] * (144 + 36 + 4 * channels[1]) + 40 * channels[1]
    assert execution.channels_BL.tolist() == [list(channels)]
    assert execution.executed_macs_B.tolist() == [by_hand]


def test_step_costs_by_hand() -> None:
    cost = MacStepCost(NETWORK)
    assert cost.before == 1_728 / 3_600
    assert cost(0, torch.tensor([[1], [2]])).tolist() == [720 / 3_600, 1_440 / 3_600]
    assert cost(1, torch.tensor([[1, 1], [2, 2]])).tolist() == [224 / 3_600, 432 / 3_600]


def test_known_backbones() -> None:
    resnet20 = backbones.create("resnet20-cifar", num_classes=10, image_shape=(3, 32, 32))
    # Stem 442,368; 6 x 2,359,296; twice 1,179,648 + 5 x 2,359,296; linear 640.
    assert dense_macs(trace(resnet20, (3, 32, 32))) == 40_551_040
    mcifarnet = backbones.create("mcifarnet", num_classes=10, image_shape=(3, 32, 32))
    assert dense_macs(trace(mcifarnet, (3, 32, 32))) == 174_301_824


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torch_counts_two_flops_per_mac(name: str) -> None:
    backbone = getattr(models, name)(weights=None).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * dense_macs(trace(backbone, (3, 32, 32)))


def test_a_plan_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs 2 columns, one per site, but got shape \(1, 3\)"):
        plan_macs(NETWORK, torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="up to site 0 has 1 columns, but got 2"):
        MacStepCost(NETWORK)(0, torch.ones(1, 2, dtype=torch.int64))
