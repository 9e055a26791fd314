"""Several env runners: shared data, their own images, one backbone, and one of them killed."""

import dataclasses
import os
import signal
from typing import Any

import numpy as np
import pytest
import ray
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn import PruningDQN
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.errors import UserError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.resources import AgentResources, EnvRunnerRequest

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def network() -> PrunableNetwork:
    torch.manual_seed(0)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    return trace(backbone, (1, 8, 8), groups=3).eval()


def ask(algorithm: PruningDQN, question: Any) -> list[Any]:
    """Ask all remote env runners."""
    return algorithm.env_runner_group.foreach_env_runner(question, local_env_runner=False)


def test_exported_policy_beside_the_backbone_plans_as_the_algorithm_does(
    network: PrunableNetwork, settings: DQNSettings
) -> None:
    data = datasets.load("digits")
    settings = dataclasses.replace(settings, images_per_runner=len(data.policy))
    algorithm = build(
        dqn_config(PruningProblem(network=network, data=data.policy, penalty=0.1), settings)
    )
    for _ in range(3):
        algorithm.train()
    env = algorithm.env_runner.lockstep_env
    env.set_images(data.policy.images_NCHW, data.policy.labels_N, shuffle=False)
    (told,) = algorithm.env_runner.sample(explore=False)
    policy = DecisionPolicy(algorithm.decision_network(), penalty=0.1)
    with torch.inference_mode():
        result = network.execute(datasets.to_float(data.policy.images_NCHW), policy, mode="masked")
    assert len(np.unique(told.actions_EL, axis=0)) > 1  # the plans differ between images
    assert np.array_equal(result.groups_BL.numpy(), told.actions_EL + 1)
    algorithm.stop()


@pytest.mark.slow
def test_a_killed_env_runner_comes_back_with_the_backbone(
    network: PrunableNetwork, settings: DQNSettings
) -> None:
    settings = dataclasses.replace(settings, images_per_runner=16)
    resources = AgentResources(env_runner=EnvRunnerRequest(workers=2))
    data = ray.put(datasets.load("digits"))
    algorithm = build(
        dqn_config(
            PruningProblem(
                network=network, data=data, split="policy", penalty=0.1, resources=resources
            ),
            settings,
        )
    )
    algorithm.train()

    drawn = ask(algorithm, lambda runner: runner.lockstep_env._image_B)
    assert set(drawn[0] % 2) == {0}
    assert set(drawn[1] % 2) == {1}
    in_store = ask(
        algorithm,
        lambda runner: (
            not (
                runner.lockstep_env._queue.images_NCHW.flags.writeable
                or runner.lockstep_env._queue.images_NCHW.flags.owndata
            )
        ),
    )
    assert in_store == [True, True]

    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.1)
    algorithm.push_backbone(network.state_dict(), version=4)
    pids = ask(algorithm, lambda runner: os.getpid())
    os.kill(pids[0], signal.SIGKILL)
    for _ in range(200):
        steps = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
        answers = ask(algorithm, lambda runner: (os.getpid(), runner.lockstep_env.backbone_version))
        if len(answers) == 2:
            break
    assert pids[0] not in {pid for pid, _ in answers}
    assert [version for _, version in answers] == [4, 4]
    assert algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] > steps
    weights = ask(
        algorithm,
        lambda runner: next(iter(runner.lockstep_env.network.parameters())).detach().numpy(),
    )
    expected = next(iter(network.parameters())).detach().numpy()
    assert all(np.array_equal(found, expected) for found in weights)
    assert algorithm.local_replay_buffer.backbone_version == 4

    # Nobody answers in a millisecond: that is said, and not taken for a sample.
    algorithm.config = algorithm.config.copy(copy_frozen=False)
    algorithm.config.sample_timeout_s = 0.001
    with pytest.raises(UserError, match=r"within `sample_timeout_s`, but none did in 0\.001 s"):
        algorithm.training_step()
    algorithm.stop()
