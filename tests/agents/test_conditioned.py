"""One agent, many penalties: the dial turns the plans, and the best are known at both ends."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pruning_envs.oracle import OracleNetwork
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.policy import DecisionPolicy, SpreadPolicy
from runtime_pruning.agents.settings import DQNSettings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def plans(oracle: OracleNetwork, policy: DecisionPolicy | SpreadPolicy, count: int) -> torch.Tensor:
    """The plans of a policy for images of class 0, 1, ... and again."""
    images_BCHW = (torch.arange(count) % 4)[:, None, None, None] / 255
    chooser, run, chosen = policy.start(count), oracle.start(images_BCHW), []
    while not run.finished:
        chosen.append(chooser.choose(run.site, run.features_BF))
        run.advance(chosen[-1])
    return torch.stack(chosen, 1)


def test_one_agent_finds_the_known_best_plans_at_every_penalty(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    """A missing group loses 0.5: below that price all that is needed is run, above it nothing."""
    settings = dataclasses.replace(settings, replay_ratio=8.0)
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=(0.1, 2.5)), settings)
    algorithm = build(config)
    needed, least = oracle.needed_KL, torch.ones(4, 3, dtype=torch.int64)
    for _ in range(30):
        for _ in range(10):
            algorithm.train()
        network = algorithm.decision_network()
        dial = [plans(oracle, DecisionPolicy(network, p), 4) for p in (2.0, 1.0, 0.25, 0.12)]
        if torch.equal(dial[0], least) and torch.equal(dial[3], needed):
            break
    assert torch.equal(dial[0], least)
    assert torch.equal(dial[3], needed)
    cost = [float(plan_BL.sum()) for plan_BL in dial]
    assert cost == sorted(cost)

    # Images of one batch may be told different penalties.
    told_B = torch.tensor([2.0] * 4 + [0.12] * 4)
    mixed_BL = plans(oracle, SpreadPolicy(network, lambda count: told_B[:count]), 8)
    assert torch.equal(mixed_BL, torch.cat([least, needed]))
    algorithm.stop()


def test_episodes_are_learned_from_under_penalties_that_they_did_not_run_under(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    for relabel in (True, False):
        own = dataclasses.replace(settings, relabel=relabel)
        config = dqn_config(PruningProblem(network=oracle, data=images, penalty=(0.1, 2.5)), own)
        algorithm = build(config)
        (episodes,) = algorithm.env_runner.sample()
        algorithm.local_replay_buffer.add(episodes)
        seen: list[np.ndarray] = []
        sample = algorithm.local_replay_buffer.sample

        def noted(count: int, penalties: object, sample=sample, seen=seen) -> object:  # type: ignore[no-untyped-def]
            drawn = sample(count, penalties)
            seen.append(drawn.penalty_E)
            return drawn

        algorithm.local_replay_buffer.sample = noted
        algorithm._update(steps=0)
        assert np.isin(seen[0], episodes.penalty_E).all() != relabel
        algorithm.stop()
