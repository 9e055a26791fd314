"""RLlib's stock DQN finds the known optimum of a small cascade, and leaves as plain torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pruning_envs import CascadeTable
from pruning_envs.cascade_oracle import best_return
from runtime_pruning.agents.cascade_dqn import CascadeDQNSettings, cascade_config, export
from runtime_pruning.cascades import judge
from runtime_pruning.cascades.q_chooser import QChooser
from runtime_pruning.errors import ConfigError

# RLlib files each environment under one name of its own; gymnasium warns when it is taken.
pytestmark = pytest.mark.filterwarnings("ignore:.*rllib-single-agent-env-v0 already in registry")


@pytest.fixture
def table() -> CascadeTable:
    """The cheap member is sure of half of the images; the dear one is right about all."""
    probabilities_NMK = np.array(
        [
            [[0.99, 0.01], [0.99, 0.01]],
            [[0.01, 0.99], [0.01, 0.99]],
            [[0.45, 0.55], [0.99, 0.01]],
            [[0.55, 0.45], [0.01, 0.99]],
        ],
        np.float32,
    )
    return CascadeTable(
        log_probabilities_NMK=np.log(probabilities_NMK),
        labels_N=np.array([0, 1, 0, 1]),
        costs_NM=np.tile(np.array([0.25, 1.0], np.float32), (4, 1)),
        weights_SM=np.array([[0, 0], [1, 0], [0, 1], [0, 1]], np.float32),
    )


def earned(table: CascadeTable, chooser: QChooser) -> float:
    """Mean return of a chooser at its own penalty."""
    outcome = judge(table, chooser)
    loss_N = table.losses("error")[np.arange(len(table)), outcome.sets_N]
    return float(-loss_N.mean() - chooser.penalty * outcome.cost)


@pytest.fixture
def trained(table: CascadeTable, ray_cluster: None) -> Iterator[Any]:
    settings = CascadeDQNSettings(
        penalty_low=0.05,
        penalty_high=2.0,
        hidden=(32, 32),
        lr=3e-3,
        batch=128,
        warmup=500,
        env_steps=8_000,
        explored=1.0,
        target_update=200,
    )
    algorithm = cascade_config(table, settings).build_algo()
    yield algorithm
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_one_agent_finds_the_optimum_at_each_penalty(table: CascadeTable, trained: Any) -> None:
    penalties = (0.1, 0.3, 1.5)  # a cascade, a cascade, a guess
    found: list[float] = []
    best = [best_return(table, penalty) for penalty in penalties]
    for _ in range(12):
        trained.train()
        network = export(trained)
        found = [earned(table, QChooser(network, penalty)) for penalty in penalties]
        if found == pytest.approx(best, abs=1e-5):
            break
    assert found == pytest.approx(best, abs=1e-5)
    # The exported network says what RLlib's says.
    seen_BF = torch.randn(16, 8)
    said_B = trained.get_module().forward_inference({"obs": seen_BF})["actions"]
    assert export(trained)(seen_BF).argmax(1).tolist() == said_B.tolist()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="`penalty_low <= penalty_high`"):
        CascadeDQNSettings(penalty_low=2.0)
