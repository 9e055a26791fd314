"""What a decision costs in milliseconds: by hand, adding up to the price, without weights."""

import pickle

import pytest
import torch
from two_sites import BY_HAND, NETWORK, Two

from pruning_envs import StepCost
from runtime_pruning import backbones
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency import LatencyTable
from runtime_pruning.cost.latency_cost import LatencyStepCost
from runtime_pruning.cost.timed_units import (
    TimedSlicedNetwork,
)
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace


@pytest.fixture(scope="module")
def resnet() -> PrunableNetwork:
    shape = (3, 8, 8)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    return trace(backbone, shape).eval()


@pytest.fixture(scope="module")
def table(resnet: PrunableNetwork) -> LatencyTable:
    return calibrate(TimedSlicedNetwork(resnet), backbone="resnet20", passes=1, rounds=2)


def test_step_costs_by_hand() -> None:
    step = LatencyStepCost(BY_HAND, NETWORK)
    assert step.dense_ms == 13
    assert step.before == pytest.approx(1.5 / 13)
    assert step(0, torch.tensor([[1], [2]])).tolist() == pytest.approx([2 / 13, 4 / 13])
    plans_BL = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
    expected = [1.25 / 13, 2.5 / 13, 3.25 / 13, 7.5 / 13]
    assert step(1, plans_BL).tolist() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="up to site 0 has 1 columns, but got 2"):
        step(0, plans_BL)


def test_another_networks_table_is_refused() -> None:
    other = trace(Two(), (1, 6, 6), groups=2, align=4)
    with pytest.raises(ConfigError, match=r"is of another network \('two', key "):
        LatencyStepCost(BY_HAND, other)


def test_what_an_agent_pays_is_the_price(resnet: PrunableNetwork, table: LatencyTable) -> None:
    step: StepCost = LatencyStepCost(table, resnet)
    assert isinstance(step, LatencyStepCost)
    generator = torch.Generator().manual_seed(0)
    groups_BL = torch.randint(1, 5, (32, len(resnet.sites)), generator=generator)
    paid_B = sum(step(site, groups_BL[:, : site + 1]) for site in range(len(resnet.sites)))
    price_B = table.price(resnet.channels(groups_BL))
    torch.testing.assert_close((paid_B + step.before) * step.dense_ms, price_B)
    assert all(float(step(site, groups_BL[:, : site + 1]).min()) > 0 for site in range(18))
    full_1L = torch.full((1, 18), 4)
    whole = sum(float(step(site, full_1L[:, : site + 1])) for site in range(18))
    assert whole + step.before == pytest.approx(1)


def test_the_cost_travels_without_weights(resnet: PrunableNetwork, table: LatencyTable) -> None:
    step = LatencyStepCost(table, resnet)
    packed = pickle.dumps(step)
    assert len(packed) < 20_000  # the network's weights alone are 1.1 MB
    groups_BL = torch.tensor([[1, 3], [4, 2]])
    assert torch.equal(pickle.loads(packed)(1, groups_BL), step(1, groups_BL))
