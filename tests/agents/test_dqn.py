"""The agent learns what is known to be right, leaves RLlib unchanged, and comes back from disk."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pruning_envs.oracle import OracleNetwork
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn import PruningDQN
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.agents.replay import Episodes
from runtime_pruning.agents.settings import DQNSettings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def greedy(algorithm: PruningDQN) -> Episodes:
    """One greedy lockstep batch in the driver."""
    (episodes,) = algorithm.env_runner.sample(explore=False)
    return episodes


def greedy_return(algorithm: PruningDQN) -> float:
    return float(greedy(algorithm).rewards_EL.sum(1).mean())


def train_until(algorithm: PruningDQN, wanted: float, iterations: int) -> float:
    """Train until a greedy batch returns what is wanted; return what the last one did."""
    for _ in range(iterations):
        for _ in range(10):
            algorithm.train()
        if (found := greedy_return(algorithm)) >= wanted:
            break
    return found


def exported_plans(algorithm: PruningDQN, network: Any, images_NCHW: np.ndarray) -> torch.Tensor:
    """Plans that the exported network chooses, run beside the backbone in plain torch."""
    chooser = DecisionPolicy(algorithm.decision_network(), penalty=0.1).start(len(images_NCHW))
    plans = []
    with torch.inference_mode():
        run = network.start(torch.from_numpy(images_NCHW).float() / 255, mode="masked")
        while not run.finished:
            plans.append(chooser.choose(run.site, run.features_BF))
            run.advance(plans[-1])
    return torch.stack(plans, 1)


def bellman_targets(
    drawn: Episodes, acting_BLG: torch.Tensor, target_BLG: torch.Tensor, gamma: float, n: int
) -> torch.Tensor:
    """Return ``target_BL``, decision by decision, as the equations are written."""
    episodes, sites = drawn.rewards_EL.shape
    result_BL = torch.zeros(episodes, sites)
    for e in range(episodes):
        for site in range(sites):
            for later in range(site, min(site + n, sites)):
                result_BL[e, site] += gamma ** (later - site) * float(drawn.rewards_EL[e, later])
            if site + n < sites:  # double Q: the network that acts chooses, the target values
                best = int(acting_BLG[e, site + n].argmax())
                result_BL[e, site] += gamma**n * target_BLG[e, site + n, best]
    return result_BL


def cut_returns(
    drawn: Episodes, acting_BLG: torch.Tensor, target_BLG: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Return ``target_BL``: rewards for as long as the network that acts would have done the same.

    Walks forwards from each decision, where the code under test recurs backwards.
    """
    episodes, sites = drawn.rewards_EL.shape
    result_BL = torch.zeros(episodes, sites)
    for e in range(episodes):
        for site in range(sites):
            result_BL[e, site] = float(drawn.rewards_EL[e, site])
            for later in range(site + 1, sites):
                best = int(acting_BLG[e, later].argmax())
                if drawn.actions_EL[e, later] != best:
                    value = target_BLG[e, later, best]
                    result_BL[e, site] += gamma ** (later - site) * value
                    break
                result_BL[e, site] += gamma ** (later - site) * float(drawn.rewards_EL[e, later])
    return result_BL


def test_learns_the_known_best_plans_from_memory_and_again_on_a_new_backbone(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings, best_return: float
) -> None:
    algorithm = build(
        dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    )
    untrained = greedy_return(algorithm)
    found = train_until(algorithm, best_return - 0.02, iterations=16)
    assert untrained < best_return - 0.2
    assert found >= best_return - 0.02

    # The class shows before the first site alone: these plans need memory.
    algorithm.env_runner.lockstep_env.set_images(images.images_NCHW, images.labels_N, shuffle=False)
    seen = torch.from_numpy(greedy(algorithm).actions_EL + 1)
    assert torch.equal(exported_plans(algorithm, oracle, images.images_NCHW), seen)
    assert len(seen.unique(dim=0)) >= 3

    # What it comes to expect from each site on is what its plans earn from there.
    for _ in range(60):
        algorithm.train()
    episodes = greedy(algorithm)
    q_BLG = algorithm.decision_network()(
        torch.from_numpy(episodes.features_ELF),
        torch.from_numpy(episodes.previous_EL),
        torch.from_numpy(episodes.penalty_E),
    )
    earned_EL = episodes.rewards_EL[:, ::-1].cumsum(1)[:, ::-1]
    assert np.abs(q_BLG.detach().amax(-1).numpy() - earned_EL).mean() < 0.05

    # All classes change their needs: one group everywhere is best now.
    algorithm.push_backbone({"needed_KL": torch.ones(4, 3, dtype=torch.int64)}, version=1)
    assert len(algorithm.local_replay_buffer) == 0
    assert greedy_return(algorithm) < -0.1  # still pays for what nobody needs
    assert train_until(algorithm, -0.02, iterations=10) >= -0.02
    assert algorithm.local_replay_buffer.backbone_version == 1
    with pytest.raises(ValueError, match=r"version > 1.*got 1"):
        algorithm.push_backbone(oracle.state_dict(), version=1)
    algorithm.stop()


@pytest.mark.parametrize("n_step", [1, 2, 3, None])
def test_one_gradient_step_follows_the_bellman_equation(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings, n_step: int | None
) -> None:
    """RLlib's loss over our columns is the mean squared error that the equations give."""
    settings = dataclasses.replace(
        settings, loss="mse", gamma=0.5, n_step=n_step or 1, greedy_returns=n_step is None
    )
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    algorithm = build(config)
    (episodes,) = algorithm.env_runner.sample()
    algorithm.local_replay_buffer.add(episodes)
    drawn = algorithm.local_replay_buffer.sample(8)
    whole = (
        torch.from_numpy(drawn.features_ELF),
        torch.from_numpy(drawn.previous_EL),
        torch.from_numpy(drawn.penalty_E),
    )
    target = algorithm.decision_network()
    torch.nn.init.normal_(target.decode_LHG, generator=torch.Generator().manual_seed(1))
    algorithm.learner_group.foreach_learner(
        lambda learner: learner.module["default_policy"]._target_q_network.load_state_dict(
            target.state_dict()
        )
    )
    acting_BLG, target_BLG = algorithm.decision_network()(*whole).detach(), target(*whole).detach()
    if n_step is None:
        expected_BL = cut_returns(drawn, acting_BLG, target_BLG, 0.5)
        follows_BL = torch.from_numpy(drawn.actions_EL) == acting_BLG.argmax(2)
        assert follows_BL[:, 1:].any()
        assert not follows_BL[:, 1:].all()
    else:
        expected_BL = bellman_targets(drawn, acting_BLG, target_BLG, 0.5, n_step)
    chosen_BL = acting_BLG.gather(-1, torch.from_numpy(drawn.actions_EL)[..., None])[..., 0]
    expected = (chosen_BL - expected_BL).square().mean()

    algorithm.local_replay_buffer.sample = lambda count, penalties: drawn
    (result,) = algorithm._update(steps=0)
    assert float(result["default_policy"]["qf_loss"].peek()) == pytest.approx(
        float(expected), rel=1e-4
    )
    algorithm.stop()


def test_samples_are_whole_episodes_with_no_step_of_the_next(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    """The class shows before the first site alone: a shift by one step would show."""
    algorithm = build(
        dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    )
    algorithm.env_runner.lockstep_env.set_images(images.images_NCHW, images.labels_N, shuffle=False)
    needed_EL = oracle.needed_KL[torch.from_numpy(images.labels_N)].numpy()
    for _ in range(2):
        (episodes,) = algorithm.env_runner.sample()
        shown_E = episodes.features_ELF[:, 0].argmax(1)
        assert np.array_equal(shown_E, images.labels_N)
        assert not episodes.features_ELF[:, 1:].any()
        missing_EL = np.maximum(needed_EL - episodes.actions_EL - 1, 0)
        paid_EL = -0.1 * episodes.actions_EL.astype(np.float64)
        paid_EL[:, -1] -= 0.5 * missing_EL.sum(1)  # the cross-entropy comes once, at the end
        np.testing.assert_allclose(episodes.rewards_EL, paid_EL, atol=1e-4)
    algorithm.stop()


def test_a_network_with_one_site_trains(images: SimpleNamespace, settings: DQNSettings) -> None:
    network = OracleNetwork(torch.tensor([[1], [2], [3], [1]]), groups=3)
    config = dqn_config(PruningProblem(network=network, data=images, penalty=0.1), settings)
    algorithm = build(config)
    # Best: (0 + 0.1 + 0.2 + 0) / 4
    assert train_until(algorithm, -0.08, iterations=10) == pytest.approx(-0.075, abs=1e-5)
    algorithm.stop()


def test_gradient_steps_follow_the_replay_ratio(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    settings = dataclasses.replace(settings, replay_ratio=1.5, batch_episodes=64, warmup_episodes=0)
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    algorithm = build(config)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # the agent's training has its own, and gives them back
    for _ in range(4):
        result = algorithm.train()
    assert torch.get_num_threads() == threads + 1
    # 4 rounds of 64 episodes, each trained on 1.5 times, in batches of 64.
    learner = result["learners"]["default_policy"]
    assert learner["num_module_steps_trained_lifetime"] == 6 * 64
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 4 * 64 * 3
    algorithm.stop()


def test_exploration_is_random_at_first_and_greedy_when_asked(
    oracle: OracleNetwork, images: SimpleNamespace, settings: DQNSettings
) -> None:
    config = dqn_config(PruningProblem(network=oracle, data=images, penalty=0.1), settings)
    algorithm = build(config)
    (explored,) = algorithm.env_runner.sample()
    counts = np.bincount(explored.actions_EL.ravel(), minlength=3)
    assert counts.min() > 192 / 3 - 30  # even thirds of 192, 4.5 standard deviations
    assert len(np.unique(greedy(algorithm).actions_EL, axis=0)) <= 4  # one plan per class
    assert len(algorithm.env_runner.sample(num_episodes=65)) == 2
    algorithm.stop()
