"""A prunable network runs what a plan or a policy says, and counts it."""

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy

SHAPE = (1, 8, 8)


@pytest.fixture
def network() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=1)
    return trace(backbone, SHAPE, groups=2, align=4).eval()


class Looking:
    """Runs all groups where the first feature is above the images' mean of it, else one."""

    name, macs_per_image = "looking", 5

    def start(self, batch: int) -> "Looking":
        return self

    def choose(self, site: int, features_BF: torch.Tensor) -> torch.Tensor:
        first_B = features_BF[:, 0]
        return torch.where(first_B > first_B.mean(), 2, 1)


def test_a_policys_own_macs_are_counted_with_what_it_chose(network: PrunableNetwork) -> None:
    images_BCHW = torch.rand(6, *SHAPE)
    told = network.execute(images_BCHW, Looking())
    assert told.policy_macs_B.tolist() == [5] * 6
    assert torch.equal(told.groups_BL, network.plan(images_BCHW, Looking()))
    assert len(told.groups_BL.unique(dim=0)) > 1
    again = network.run(images_BCHW, told.groups_BL)
    torch.testing.assert_close(again.logits_BK, told.logits_BK)
    assert torch.equal(again.executed_macs_B, told.executed_macs_B)


def test_a_plan_that_is_fixed_is_known_without_running(network: PrunableNetwork) -> None:
    network.backbone.conv1.weight = None  # running it would raise
    planned_BL = network.plan(torch.rand(3, *SHAPE), FixedPolicy((1, 2, 1)))
    assert planned_BL.tolist() == [[1, 2, 1]] * 3


def test_a_plan_of_another_shape_is_refused(network: PrunableNetwork) -> None:
    with pytest.raises(ConfigError, match=r"A plan of shape \(2, 3\) is needed, but got \(2, 2\)"):
        network.run(torch.rand(2, *SHAPE), torch.ones(2, 2, dtype=torch.int64))
