"""What methods that remove channels for good have in common."""

import copy
from typing import Any

import pytest

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, Magnitude, MagnitudeConfig, Task, Vanilla, VanillaConfig
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.finetuning import FinetuneConfig

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


def test_an_interrupted_run_reports_the_rest_of_its_targets() -> None:
    found, shares, dense = Reported(), (0.8, 0.5, 0.4), network()
    given = task(dense, points_done=2)
    settings = FinetuneConfig(epochs=0)
    Magnitude().fit(given, MagnitudeConfig(macs=shares, multiple=1, finetune=settings), found)
    assert found.count == 1
    assert 0.3 * dense_macs(dense) < dense_macs(found.network) <= 0.4 * dense_macs(dense)
    Vanilla().fit(
        task(dense, points_done=3, dense_effort=Effort(epochs=1)), VanillaConfig(macs=shares), found
    )
    assert found.count == 1


@pytest.mark.parametrize("macs", [(), (0.5, 0.0), 1.5])
def test_shares_that_are_none_are_refused(macs: Any) -> None:
    with pytest.raises(ConfigError, match="macs"):
        MagnitudeConfig(macs=macs)


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(ConfigError, match=r"a share of 0\.010 cannot be reached"):
        Magnitude().fit(task(network()), MagnitudeConfig(macs=0.01, multiple=8), Reported())
