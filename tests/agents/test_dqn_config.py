"""Learners in processes of their own do what the one in the driver does."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from pruning_envs.oracle import OracleNetwork
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn import PruningDQN
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.resources import AgentResources, EnvRunnerRequest, LearnerRequest, Request

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_cluster"),
    # Learners elsewhere import ray.data, which warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def with_learners(
    workers: int, oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> PruningDQN:
    resources = AgentResources(learner=LearnerRequest(cpus=0.5, workers=workers))
    problem = PruningProblem(network=oracle, data=images, penalty=0.1, resources=resources)
    algorithm: PruningDQN = build(dqn_config(problem, settings))
    return algorithm


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_learners_elsewhere_take_the_gradient_step_that_the_driver_takes(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings, workers: int
) -> None:
    """Of two, each takes half of a batch, and they average."""
    settings = dataclasses.replace(settings, loss="mse", batch_episodes=32)
    here = with_learners(0, oracle, images, settings)
    (episodes,) = here.env_runner.sample()
    here.local_replay_buffer.add(episodes)
    drawn = here.local_replay_buffer.sample(32)
    there = with_learners(workers, oracle, images, settings)
    there.learner_group.set_state({"learner": here.learner_group.get_state()["learner"]})
    before = there.decision_network().state_dict()
    after = []
    for each in (here, there):
        each.local_replay_buffer.sample = lambda count, penalties=None: drawn
        each._standardise()
        for _ in range(2):
            each._update(steps=0)
        after.append(each.decision_network().state_dict())
        each.stop()
    for name, weight in after[0].items():
        torch.testing.assert_close(after[1][name], weight, rtol=1e-4, atol=1e-5)
    assert not torch.equal(after[1]["decode_LHG"], before["decode_LHG"])
    assert not torch.equal(after[1]["feature_mean_LF"], before["feature_mean_LF"])


def test_every_process_asks_for_what_is_declared(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    resources = AgentResources(
        env_runner=EnvRunnerRequest(cpus=0.25, gpus=0.5, workers=2),
        learner=LearnerRequest(cpus=2, gpus=1, workers=3),
    )
    problem = PruningProblem(network=oracle, data=images, penalty=0.1, resources=resources)
    config = dqn_config(problem, settings)
    runner = (
        config.num_env_runners,
        config.num_cpus_per_env_runner,
        config.num_gpus_per_env_runner,
    )
    assert runner == (2, 0.25, 0.5)
    learner = (config.num_learners, config.num_cpus_per_learner, config.num_gpus_per_learner)
    assert learner == (3, 2, 1)
    assert config.env_config["device"] == "cuda"
    assert config.sample_timeout_s == settings.sample_timeout_s
    # Without env runners, environments run where the trial's own process computes.
    alone = dataclasses.replace(problem, resources=AgentResources(), device="cpu")
    assert dqn_config(alone, settings).env_config["device"] == "cpu"
    assert Request().device == "cpu"
