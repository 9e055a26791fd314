"""What tests of methods that make one network for all images share."""

import copy
from typing import Any

from runtime_pruning import backbones
from runtime_pruning.datasets import load
from runtime_pruning.methods import Effort, Task
from runtime_pruning.methods.evaluation import judge
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
