"""Widths by hand, bad calls, prepared slices, and what a run may be asked when."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy


def ones_net() -> PrunableNetwork:
    """Return 1x1 convolutions of ones, 1 -> 2 -> 4 channels; the linear layer sums channels."""
    backbone = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.fill_(1.0)
        backbone[2].bias.fill_(10.0)
    return trace(backbone, (1, 1, 1), groups=4).eval()


def test_absent_channels_leak_neither_bias_nor_shift() -> None:
    network = ones_net()
    network.backbone[2].eps = 0.0
    images_BCHW = torch.full((2, 1, 1, 1), 2.0)
    # first: 2 + 1 = 3 in both channels; site: 3 + 3 + 1 = 7 each; batch norm: 7 + 10 = 17.
    for mode in ("sliced", "masked"):
        execution = network.run(images_BCHW, torch.tensor([[1], [3]]), mode=mode)
        assert execution.logits_BK.tolist() == [[18.0, 18.0], [52.0, 52.0]]
        assert execution.mode == mode
    assert execution.executed_macs_B.tolist() == [2 + 8 + 8] * 2


class Stream(nn.Module):
    """A stream of 3 channels, to which a site adds its first ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 1)
        self.onto = nn.Conv2d(3, 3, 1)
        self.linear = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x += self.onto(x)
        return self.linear(torch.flatten(x, 1))


@torch.no_grad()
def test_a_slice_is_added_to_the_first_channels_of_the_stream() -> None:
    network = trace(Stream(), (1, 1, 1), groups=3).eval()
    for parameter in network.parameters():
        parameter.zero_()
    network.backbone.first.bias.fill_(1.0)
    network.backbone.onto.bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
    network.backbone.linear.weight.copy_(torch.eye(3))
    plans_BL = torch.tensor([[1], [3], [2]])
    for mode in ("sliced", "masked"):
        logits_BK = network.run(torch.zeros(3, 1, 1, 1), plans_BL, mode=mode).logits_BK
        assert logits_BK.tolist() == [[11, 1, 1], [11, 21, 31], [11, 21, 1]]


def test_a_staged_run_shows_pooled_inputs_and_counts_as_it_goes() -> None:
    network = ones_net()
    run = network.start(torch.full((2, 1, 1, 1), 2.0))
    assert (run.site, run.finished, run.groups_BL.shape) == (0, False, (2, 0))
    assert run.features_BF.tolist() == [[3.0, 3.0]] * 2
    assert run.executed_macs_B.tolist() == [2, 2]
    with pytest.raises(ConfigError, match="no logits before its end: site 0 is next"):
        _ = run.logits_BK
    run.advance(torch.tensor([2, 4]))
    assert (run.site, run.finished, run.groups_BL.tolist()) == (1, True, [[2], [4]])
    assert run.executed_macs_B.tolist() == [2 + 4 + 4, 2 + 8 + 8]
    with pytest.raises(ConfigError, match="finished run has no features"):
        _ = run.features_BF
    with pytest.raises(ConfigError, match="finished run cannot advance"):
        run.advance(torch.tensor([1, 1]))


class Looker:
    """Gives bright images all groups and dark ones a single one, for 100 MACs."""

    name = "looker"
    macs_per_image = 100

    def start(self, batch: int) -> "Looker":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        assert not features_BF.requires_grad
        return torch.where(features_BF.mean(1) > 2, 4, 1)


def test_a_policy_is_asked_site_by_site_and_its_macs_are_counted() -> None:
    images_BCHW = torch.tensor([0.0, 5.0])[:, None, None, None]
    execution = ones_net().execute(images_BCHW, Looker())
    assert execution.groups_BL.tolist() == [[1], [4]]
    assert execution.channels_BL.tolist() == [[1], [4]]
    assert execution.policy_macs_B.tolist() == [100, 100]
    assert execution.total_macs_B.tolist() == [2 + 2 + 2 + 100, 2 + 8 + 8 + 100]
    assert ones_net().plan(images_BCHW, Looker()).tolist() == [[1], [4]]


def test_a_known_plan_is_run_as_it_is() -> None:
    plans_BL = torch.tensor([[2], [3]])
    execution = ones_net().execute(torch.zeros(2, 1, 1, 1), PlanPolicy(plans_BL))
    assert execution.groups_BL.tolist() == [[2], [3]]
    assert execution.policy_macs_B.tolist() == [0, 0]


@torch.no_grad()
def test_prepared_slices_follow_the_weights() -> None:
    network, images_BCHW = ones_net(), torch.ones(1, 1, 1, 1)
    narrow = FixedPolicy([2])
    before_BK = network.execute(images_BCHW, narrow).logits_BK
    again_BK = network.execute(images_BCHW, narrow).logits_BK
    assert torch.equal(before_BK, again_BK)
    network.backbone[1].weight.mul_(2)
    changed_BK = network.execute(images_BCHW, narrow).logits_BK
    expected_BK = network.execute(images_BCHW, narrow, mode="masked").logits_BK
    torch.testing.assert_close(changed_BK, expected_BK)
    assert not torch.equal(changed_BK, before_BK)
    doubled = network.double().execute(images_BCHW.double(), narrow)
    assert doubled.logits_BK.dtype == torch.float64


def test_a_uniform_plan_learns_through_slices_alone() -> None:
    network = ones_net().train()
    images_BCHW = torch.rand(4, 1, 1, 1)
    network.execute(images_BCHW, FixedPolicy([2])).logits_BK.square().sum().backward()
    weight: Any = network.backbone[4].weight
    assert weight.grad[:, 2:].abs().max() == 0
    assert network.backbone[2].running_mean[2:].tolist() == [0.0, 0.0]
    assert network.backbone[2].running_mean[:2].min() > 0


@pytest.mark.parametrize(
    ("groups_BL", "message"),
    [
        ([[0], [1]], r"`1 <= groups <= 4` must hold at site 0, but got 0 to 1"),
        ([[1], [5]], r"`1 <= groups <= 4` must hold at site 0, but got 1 to 5"),
        ([[1, 1], [1, 1]], r"plan of shape \(2, 1\) is needed, but got \(2, 2\)"),
        ([[1]], r"plan of shape \(2, 1\) is needed, but got \(1, 1\)"),
    ],
)
def test_a_bad_plan_is_refused(groups_BL: list[list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ones_net().run(torch.zeros(2, 1, 1, 1), torch.tensor(groups_BL))


def test_bad_calls_are_refused() -> None:
    network: Any = ones_net()
    with pytest.raises(ConfigError, match=r"shape \(B, 1, 1, 1\) are needed, but got \(1, 3, 2, 2"):
        network.start(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ConfigError, match=r"`mode` must be one of .* but got 'dense'"):
        network.start(torch.zeros(1, 1, 1, 1), mode="dense")
    with pytest.raises(ConfigError, match=r"shape \(2,\) are needed, but got \(1,\)"):
        network.start(torch.zeros(2, 1, 1, 1)).advance(torch.tensor([1]))
    with pytest.raises(ConfigError, match=r"`1 <= groups <= 4` must hold.*from 1 to 7"):
        network.channels(torch.tensor([[1], [7]]))
