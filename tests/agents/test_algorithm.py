"""What every algorithm that prunes keeps: its backbone through checkpoints, and no data."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pruning_envs.oracle import OracleNetwork
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn import PruningDQN
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.settings import DQNSettings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_comes_back_from_a_checkpoint_with_backbone_and_replay(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, store_replay=True)
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    algorithm = build(config)
    algorithm.push_backbone({"needed_KL": torch.full((4, 3), 2)}, version=5)
    for _ in range(5):
        algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    kept = algorithm.decision_network().state_dict()
    episodes = len(algorithm.local_replay_buffer)
    for _ in range(3):
        algorithm.train()  # goes on: restoring has to turn this back
    fresh = build(dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings))
    for each in (algorithm, fresh):
        each.restore_from_path(str(tmp_path / "checkpoint"))
        restored = each.decision_network().state_dict()
        assert all(torch.equal(value, restored[name]) for name, value in kept.items())
        acting = each.env_runner.module.q_network.state_dict()
        assert all(torch.equal(value, acting[name]) for name, value in kept.items())
        assert each.env_runner.lockstep_env.backbone_version == 5
        assert each.env_runner.lockstep_env.network.needed_KL.tolist() == [[2] * 3] * 4
        assert len(each.local_replay_buffer) == episodes == 5 * 64
        assert each.env_runner.num_env_steps_sampled_lifetime == 5 * 64 * 3
        assert each.train()["env_runners"]["num_env_steps_sampled_lifetime"] == 6 * 64 * 3
        each.stop()


def test_a_checkpoint_holds_no_data(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings, tmp_path: Path
) -> None:
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    algorithm = build(config)
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    with pytest.raises(ValueError, match="build the algorithm anew"):
        PruningDQN.from_checkpoint(str(tmp_path / "checkpoint"))
