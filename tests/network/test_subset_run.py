"""Subsets by hand: what is computed, what it costs, and that masked and gathered mean the same."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.saliency import SaliencyBranch, SubsetPolicy, saliency_policy
from runtime_pruning.network.subset_run import (
    SubsetExecution,
    SubsetRun,
    carried_subsets,
    subset_macs,
)


class Stream(nn.Module):
    """A stream of 2 channels; 3 inside a branch, added to it; each layer is 1x1."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.inside = nn.Conv2d(2, 3, 1)
        self.onto = nn.Conv2d(3, 2, 1)
        self.linear = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x = x + self.onto(self.inside(x).relu())
        return self.linear(torch.flatten(x, 1))


@torch.no_grad()
def by_hand() -> tuple[PrunableNetwork, SubsetPolicy]:
    """Return the network with weights of one and an identity as its head, and saliencies by hand.

    The stream holds the image twice. Inside, the saliencies of an image x are 2 - x, 1 and x; of
    what is added, 0.5 and 3. The thresholds are 1 and 0.6.
    """
    network = trace(Stream(), (1, 1, 1), groups=2, align=1).eval()
    for parameter in network.parameters():
        parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    network.backbone.inside.bias.copy_(torch.tensor([0.0, 10.0, 20.0]))
    network.backbone.linear.weight.copy_(torch.eye(2))
    branches = [SaliencyBranch(*shape, hidden=2, most=10.0) for shape in ((2, 3), (3, 2))]
    policy = SubsetPolicy(branches)
    for parameter in policy.parameters():
        parameter.zero_()
    branches[0].squeeze.weight.copy_(torch.eye(2))
    branches[0].expand.weight[:, 0] = torch.tensor([-1.0, 0.0, 1.0])
    branches[0].expand.bias.copy_(torch.tensor([2.0, 1.0, 0.0]))
    branches[1].expand.bias.copy_(torch.tensor([0.5, 3.0]))
    policy.thresholds_L.copy_(torch.tensor([1.0, 0.6]))
    return network, policy


def run(mode: str) -> SubsetExecution:
    network, policy = by_hand()
    images_BCHW = torch.tensor([0.0, 3.0]).view(2, 1, 1, 1)
    result = network.execute(images_BCHW, policy, mode=mode)  # type: ignore[arg-type]
    assert isinstance(result, SubsetExecution)
    return result


@pytest.mark.parametrize("mode", ["masked", "sliced"])
def test_kept_channels_are_scaled_and_the_others_are_zero(mode: str) -> None:
    execution = run(mode)
    # Image 0: saliencies 2, 1, 0: channels 0 and 1 are kept, 0 * 2 and 10 * 1: their sum is 10.
    # Image 3: saliencies 0, 1, 3: channels 1 and 2, 16 * 1 and 26 * 3: 94.
    # Of what is added the second channel alone is kept, three times.
    assert execution.logits_BK.tolist() == [[0.0, 30.0], [3.0, 3.0 + 282.0]]
    assert execution.kept[0].tolist() == [[True, True, False], [False, True, True]]
    assert execution.channels_BL.tolist() == [[2, 1], [2, 1]]
    assert execution.policy_macs == (2 * 2 + 2 * 3) + (3 * 2 + 2 * 2)


def test_executed_macs_are_those_of_the_kept_rows_and_columns() -> None:
    # first 2, inside 2 x 2, onto 2 x 1, linear 4; everything is 2 + 6 + 6 + 4.
    assert run("sliced").executed_macs_B.tolist() == [2 + 4 + 2 + 4] * 2
    assert run("masked").executed_macs_B.tolist() == [18, 18]
    network, _ = by_hand()
    assert subset_macs(network, torch.tensor([[2, 1], [3, 2], [0, 0]])).tolist() == [12, 18, 6]


def test_a_value_carries_a_subset_up_to_the_layer_that_mixes_channels() -> None:
    network, _ = by_hand()
    carried = carried_subsets(network)
    assert sorted(carried.values()) == [0, 1]
    total = next(unit for unit in network.units if unit.kind == "add")
    assert total.output.name not in carried


class Depthwise(nn.Module):
    """A site, a depthwise convolution on it, a pooling, and a head on flattened pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU6(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12),
            nn.BatchNorm2d(12),
            nn.Sigmoid(),
            nn.Conv2d(12, 10, 3, stride=2, bias=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(10, 4),
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.body(self.first(images))
        return result


@torch.no_grad()
def test_gathered_means_masked_through_depthwise_pooling_and_flattening() -> None:
    torch.manual_seed(0)
    network = trace(Depthwise().double(), (3, 6, 6), groups=2, align=1).eval().double()
    policy = saliency_policy(network, init_scale=1.0)
    images_BCHW = torch.rand(6, 3, 6, 6, dtype=torch.float64)
    for thresholds in ([0.0, 0.0], [0.8, 1.1], [1.2, 50.0], [50.0, 0.5]):
        policy.thresholds_L.copy_(torch.tensor(thresholds))
        masked = network.execute(images_BCHW, policy, mode="masked")
        with FlopCounterMode(display=False) as counter:
            sliced = network.execute(images_BCHW, policy)
        torch.testing.assert_close(sliced.logits_BK, masked.logits_BK)
        analytic_B = subset_macs(network, sliced.channels_BL)
        assert sliced.executed_macs_B.tolist() == analytic_B.tolist()
        counted = 2 * int(sliced.total_macs_B.sum())
        assert counter.get_total_flops() == counted
    assert sliced.channels_BL[:, 0].tolist() == [0] * 6


def test_training_sees_features_and_saliencies_and_a_gradient_reaches_both() -> None:
    network, policy = by_hand()
    network.train()
    images_BCHW = torch.tensor([0.0, 3.0]).view(2, 1, 1, 1)
    found = SubsetRun(network, images_BCHW, policy, "masked").finish()
    assert [tuple(part.shape) for part in found.saliencies] == [(2, 3), (2, 2)]
    assert found.pooled[0].tolist() == [[0.0, 10.0, 20.0], [6.0, 16.0, 26.0]]  # before the mask
    found.logits_BK.sum().backward()
    # Of image 0 and 3 the kept saliencies multiply 3 times their features: 0 and 0, 10 + 16, 26.
    assert policy.branch(0).expand.bias.grad is not None
    assert policy.branch(0).expand.bias.grad.tolist() == [0.0, 3 * 26.0, 3 * 26.0]


def test_a_policy_of_another_network_is_refused() -> None:
    network, policy = by_hand()
    with pytest.raises(ConfigError, match="a branch per site"):
        network.execute(torch.zeros(1, 1, 1, 1), SubsetPolicy([policy.branch(0)]))
