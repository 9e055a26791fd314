"""Fixed widths are reported narrowest first, each with statistics of its own."""

import copy
from typing import Any

import torch

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


def test_fixed_width_reports_every_width_narrowest_first() -> None:
    assert reported("fixed-width", task()) == [([g] * 3, False) for g in (1, 2, 3, 4)]


def test_fixed_width_takes_statistics_anew_for_each_width() -> None:
    given = task()
    given.network.condition_batch_norm()
    norm = given.network.backbone.bn2
    before = norm.running_mean.clone()
    reported("fixed-width", given)
    assert not torch.equal(norm.running_mean, before)
