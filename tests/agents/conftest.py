"""One small Ray for each module that needs it, and problems whose answers are known."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pruning_envs.oracle import OracleNetwork, oracle_images
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.settings import DQNSettings

NEEDED_KL = [[1, 2, 3], [3, 1, 1], [2, 3, 1], [1, 1, 2]]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    import ray

    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture
def oracle() -> OracleNetwork:
    """Four classes that need different groups at three sites, visible at the first site alone."""
    needed_KL = torch.tensor(NEEDED_KL)
    return OracleNetwork(needed_KL, groups=3, loss_per_group=0.5, remind=False)


@pytest.fixture
def images() -> SimpleNamespace:
    """64 images, 16 of each class, in one lockstep batch."""
    images_NCHW, labels_N = oracle_images(classes=4, copies=16)
    return SimpleNamespace(images_NCHW=images_NCHW, labels_N=labels_N)


@pytest.fixture
def settings() -> DQNSettings:
    return DQNSettings(
        encoder=32,
        hidden=32,
        lr=3e-3,
        epsilon=EpsilonSchedule(steps=6_000),
        images_per_runner=64,
        warmup_episodes=128,
    )


@pytest.fixture
def best_return(oracle: OracleNetwork) -> float:
    """Mean over the classes of what the best plans earn at penalty 0.1: -0.1 per group needed.

    Groups beyond the first: 3, 2, 3 and 1.
    """
    best = np.mean([oracle.best_return(k, penalty=0.1, alpha=1.0) for k in range(4)])
    assert best == pytest.approx(-0.1 * (3 + 2 + 3 + 1) / 4)
    return float(best)
