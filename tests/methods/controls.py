"""What tests of a sweep's controls share."""

import copy
from typing import Any

from runtime_pruning import backbones, methods
from runtime_pruning.datasets import load
from runtime_pruning.methods import Task
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy


def task(**changes: Any) -> Task:
    data = load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=data.info.image_shape)
    network = trace(backbone, data.info.image_shape, groups=4, align=4)
    settings = {
        "network": network,
        "dense": copy.deepcopy(network),
        "data": data,
        "data_ref": None,
        "seed": 0,
    }
    return Task(**{**settings, **changes})


def reported(name: str, given: Task) -> list[tuple[list[int], bool]]:
    """Return the plan of each point that a control reports, and whether it is the dense network."""
    found = []

    def report(policy: FixedPolicy, network: Any, effort: Any, **_: Any) -> None:
        found.append((policy.groups_L.tolist(), network is given.dense))

    method = methods.get(name)
    method().fit(given, method.config_type(), report)
    return found
