"""What answers wrongly is not timed."""

from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.deploy import Bundle, timing
from runtime_pruning.errors import ContractError
from runtime_pruning.executor import DeployedNetwork, deploy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy

SHAPE = (1, 8, 8)


def test_a_network_whose_modes_are_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=3)
    network = trace(backbone, SHAPE, groups=2, align=4).eval()

    def deploy_wrong(own: PrunableNetwork, **settings: Any) -> DeployedNetwork:
        deployed = deploy(own, **settings)
        with torch.no_grad():
            own.backbone.linear.bias.add_(1.0)
        return deployed

    monkeypatch.setattr(timing, "deploy", deploy_wrong)
    monkeypatch.setattr(timing, "measure", None)  # timing anything would raise something else
    bundle = Bundle(network=network, policy=FixedPolicy(network.uniform(1)), manifest={})
    with pytest.raises(ContractError, match=r"Mode '\w+' \(float32, batch 8\) must give the log"):
        timing.time_bundle(bundle, torch.rand(8, *SHAPE), [1])
