"""Threads that share one deployed network get the answers that each would get alone."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from deployed_networks import SHAPES, plans, traced
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.executor import deploy
from runtime_pruning.executor.deployed import DeployedNetwork
from runtime_pruning.executor.kernels import selection
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.staged_run import Execution

THREADS, TURNS = 4, 4
Answer = tuple[Tensor, Tensor]  # logits_BK, and executed MACs by image


@pytest.fixture
def _often() -> Iterator[None]:
    """Have Python go from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def decision_policy(network: PrunableNetwork) -> DecisionPolicy:
    torch.manual_seed(3)
    config = DecisionConfig(feature_widths=network.feature_widths, groups=network.groups)
    return DecisionPolicy(DecisionNetwork(config), penalty=0.1)


def answered(execution: Execution) -> Answer:
    return execution.logits_BK.clone(), execution.executed_macs_B.clone()


def jobs(
    network: PrunableNetwork, policy: DecisionPolicy
) -> list[Callable[[DeployedNetwork], Answer]]:
    """Return runs of unlike sizes, modes, plans and images."""
    made: list[Callable[[DeployedNetwork], Answer]] = []
    for number in range(THREADS):
        generator = torch.Generator().manual_seed(number)
        for batch in (1, 2 + number):
            images_BCHW = torch.rand(batch, *network.image_shape, generator=generator)
            plans_BL = plans(network, batch, seed=number)

            def planned(
                deployed: DeployedNetwork, images: Tensor = images_BCHW, groups: Tensor = plans_BL
            ) -> Answer:
                return answered(deployed.run(images, groups))

            def decided(deployed: DeployedNetwork, images: Tensor = images_BCHW) -> Answer:
                return answered(deployed.execute(images, policy))

            made += [planned, decided]
    return made


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "own_threads"), [("digits-cnn", 1), ("digits-cnn", 2), ("resnet20-cifar", 1)]
)
@torch.no_grad()
def test_threads_share_a_deployed_network(
    name: str, own_threads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "IN_BUFFER", 1.0)  # seconds: the same calls are taken each time
    torch.set_num_threads(own_threads)  # of each call
    network = traced(name, SHAPES[name])
    policy = decision_policy(network)
    runs = jobs(network, policy)
    alone = deploy(network, dtype=dtype, part=8)
    expected = [run(alone) for run in runs]
    shared = deploy(network, dtype=dtype, part=8)  # bound by whoever comes first
    together = threading.Barrier(THREADS)

    def work(first: int) -> None:
        together.wait()
        for turn in range(TURNS):
            for i in range(len(runs)):
                at = (i + first * len(runs) // THREADS + turn) % len(runs)
                assert all(map(torch.equal, runs[at](shared), expected[at]))

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, first) for first in range(THREADS)]:
            done.result()
