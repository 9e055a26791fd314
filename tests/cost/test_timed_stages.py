"""The deployed network taken apart into stages, once it has answered as plain PyTorch does."""

from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost import timed_stages
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency_cost import LatencyStepCost
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork, timed_deployed
from runtime_pruning.errors import ContractError
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.network import PrunableNetwork, trace


@pytest.fixture(scope="module")
def resnet() -> PrunableNetwork:
    shape = (3, 8, 8)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    return trace(backbone, shape).eval()


def test_stages_of_the_deployed_network_are_priced_like_units(resnet: PrunableNetwork) -> None:
    timed = TimedDeployedNetwork(deploy(resnet))
    assert "-fused-" in timed.device.key or "-unfused-" in timed.device.key
    plan = tuple(site % 4 + 1 for site in range(18))
    images_BCHW = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        steps = timed.steps(images_BCHW, plan)
        for step in steps * 2:
            step.run()
    assert [step.stage for step in steps] == list(range(19))
    assert [sorted(step.output.sites) for step in steps] == [[], *([site] for site in range(18))]
    # In a block, the second convolution reads what the first one writes, the first one the stream.
    assert [sorted(step.input.sites) for step in steps[1:5]] == [[], [0], [], [2]]
    expected_BK = resnet.run(images_BCHW, torch.tensor([plan] * 2)).logits_BK
    torch.testing.assert_close(timed.run(images_BCHW, plan), expected_BK, rtol=1e-3, atol=1e-4)
    table = calibrate(timed, backbone="resnet20", passes=1, rounds=1)
    step = LatencyStepCost(table, resnet)
    paid = sum(float(step(site, torch.tensor([plan[: site + 1]]))) for site in range(18))
    price = float(table.price(resnet.channels(torch.tensor([plan]))))
    assert (paid + step.before) * step.dense_ms == pytest.approx(price)


def test_a_network_whose_modes_are_wrong_gets_no_prices(
    resnet: PrunableNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deploy_wrong(network: PrunableNetwork, **settings: Any) -> DeployedNetwork:
        deployed = deploy(network, **settings)
        with torch.no_grad():
            network.backbone.linear.bias.add_(1.0)
        return deployed

    assert timed_deployed(resnet, dtype=torch.float32).network.groups == resnet.groups
    monkeypatch.setattr(timed_stages, "deploy", deploy_wrong)
    with pytest.raises(
        ContractError, match=r"Mode '\w+' \(float32, batch 4\) must give the logits"
    ):
        timed_deployed(resnet, dtype=torch.float32)
