"""Narrow networks trained alone, for as long as the dense one."""

import copy
from typing import Any

import pytest

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, Task, Vanilla, VanillaConfig
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.vanilla import AloneConfig
from runtime_pruning.network import PrunableNetwork, trace

DATA = load("digits")


SHAPE = (1, 8, 8)


class Reported:
    """Keeps what a method reports."""

    def __init__(self) -> None:
        self.network: Any = None
        self.policy: Any = None
        self.effort = Effort()
        self.count = 0

    def __call__(self, policy: Any, network: Any, effort: Effort, **_: Any) -> None:
        self.policy, self.network, self.effort = policy, network, effort
        self.count += 1

    def accuracy(self) -> float:
        facts = judge(self.network, self.policy, DATA.validation)
        return float((facts.predictions_B == DATA.validation.labels_N).mean())


def task(dense: PrunableNetwork, **changes: Any) -> Task:
    settings = {
        "network": copy.deepcopy(dense),
        "dense": dense,
        "data": DATA,
        "data_ref": None,
        "seed": 0,
        "backbone": "digits-cnn",
        "dense_effort": Effort(epochs=1.5, train_seconds=1),
    }
    return Task(**{**settings, **changes})


def network(seed: int = 0) -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=seed)
    return trace(backbone, SHAPE, groups=2, align=4)


def test_a_narrow_network_is_trained_from_chance_for_the_dense_effort() -> None:
    """Of 1.5 epochs two are made; nothing of the dense network is used."""
    dense = network(seed=5)
    for parameter in dense.parameters():
        parameter.data.fill_(float("nan"))
    found = Reported()
    config = VanillaConfig(macs=0.5, multiple=2, training=AloneConfig(batch_size=32))
    Vanilla().fit(task(dense), config, found)
    assert found.effort.epochs == 2
    assert dense_macs(found.network) <= 0.5 * dense_macs(dense)
    assert found.accuracy() > 0.5


def test_of_published_weights_no_effort_is_known() -> None:
    given = task(network(), dense_effort=Effort())
    with pytest.raises(ConfigError, match=r"`training\.epochs > 0` must hold"):
        Vanilla().fit(given, VanillaConfig(), Reported())
