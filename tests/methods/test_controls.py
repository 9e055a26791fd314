"""Plans permuted between images: what stays the same, and what does not."""

import numpy as np
import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import plan_macs
from runtime_pruning.errors import DataError
from runtime_pruning.methods.controls import Groups, groups_of, scattered, shuffled
from runtime_pruning.network import PrunableNetwork, trace


@pytest.fixture(scope="module")
def network() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    return trace(backbone, (1, 8, 8), groups=4, align=4)


def macs(network: PrunableNetwork, groups_NL: Groups) -> float:
    return float(plan_macs(network, network.channels(torch.from_numpy(groups_NL))).double().mean())


def test_channels_and_groups_are_each_others_inverse(network: PrunableNetwork) -> None:
    groups_NL = np.array([[1, 2, 3], [4, 4, 1]])
    channels_NL = network.channels(torch.from_numpy(groups_NL)).numpy()
    assert groups_of(network, channels_NL).tolist() == groups_NL.tolist()
    with pytest.raises(DataError, match=r"runs .* channels, but got"):
        groups_of(network, channels_NL + 1)
    with pytest.raises(DataError, match="of 3 sites are needed"):
        groups_of(network, channels_NL[:, :2])


def test_shuffled_plans_are_the_same_plans(network: PrunableNetwork) -> None:
    groups_NL = np.random.default_rng(0).integers(1, 5, (50, 3))
    one, other = shuffled(groups_NL, seed=1), shuffled(groups_NL, seed=2)
    assert sorted(one.tolist()) == sorted(groups_NL.tolist())
    assert one.tolist() != groups_NL.tolist()
    assert one.tolist() != other.tolist()
    assert macs(network, one) == macs(network, groups_NL)


@pytest.mark.parametrize("spread", ["together", "apart"])
def test_scattered_plans_keep_histograms_and_mean_cost(
    network: PrunableNetwork, spread: str
) -> None:
    # Sites that are wide together cost more than the same widths spread over images, and sites
    # that are wide in turns cost less: shuffling each on its own moves the mean either way.
    rng = np.random.default_rng(9)
    groups_NL = np.stack([1 + 3 * (np.arange(400) % 2)] * 3, axis=1)
    if spread == "apart":
        groups_NL[:, 1] = 5 - groups_NL[:, 1]
    groups_NL[:120] = rng.integers(1, 5, (120, 3))
    naive_NL = np.stack([rng.permutation(column) for column in groups_NL.T], axis=1)
    assert abs(macs(network, naive_NL) / macs(network, groups_NL) - 1) > 0.05
    plans_NL = scattered(network, groups_NL, seed=3)
    for site in range(3):
        assert sorted(plans_NL[:, site]) == sorted(groups_NL[:, site])
    assert macs(network, plans_NL) == pytest.approx(macs(network, groups_NL), rel=2e-3)
    assert plans_NL.tolist() != groups_NL.tolist()


def test_a_constant_plan_stays_what_it_is(network: PrunableNetwork) -> None:
    groups_NL = np.full((21, 3), 2)
    assert scattered(network, groups_NL, seed=0).tolist() == groups_NL.tolist()
    assert shuffled(groups_NL, seed=0).tolist() == groups_NL.tolist()
