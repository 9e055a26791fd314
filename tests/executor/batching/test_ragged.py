"""Batches whose images have unlike plans, in one compiled call."""

from functools import partial

import pytest
import torch

from deployed_networks import SHAPES, images, plans, traced
from runtime_pruning.executor.deployed import deploy


@pytest.mark.parametrize("name", ["mcifarnet", "resnet20-cifar", "mobilenet_v2"])
@torch.no_grad()
def test_the_layers_of_unlike_plans_are_one_compiled_call(name: str) -> None:
    """Residual adds with and without a ReLU after them are done by their convolutions."""
    network = traced(name, SHAPES[name])
    deployed = deploy(network)
    if "ragged" not in deployed.modes:
        pytest.skip("needs a compiler and an x86 CPU")
    deployed.run(images(network, 3), plans(network, 3, seed=3), mode="ragged")
    assert deployed.engine.ragged is not None
    assert sum(isinstance(step, partial) for step in deployed.engine.ragged._all) == 1
