"""Policies that look at nothing."""

import pickle

import pytest
import torch

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy, RandomPolicy


def test_fixed_gives_everyone_the_same() -> None:
    chooser = FixedPolicy([1, 3]).start(2)
    assert chooser.groups_BL.tolist() == [[1, 3], [1, 3]]
    assert chooser.choose(1, torch.zeros(2, 5)).tolist() == [3, 3]


def test_random_draws_all_counts_and_replays_from_its_seed() -> None:
    draws_BL = RandomPolicy(3, 2, seed=0).start(300).groups_BL
    counts = [int((draws_BL == groups).sum()) for groups in (1, 2, 3)]
    assert sum(counts) == 600
    assert min(counts) > 150
    policy = pickle.loads(pickle.dumps(RandomPolicy(3, 2, seed=0)))
    halves = [policy.start(150).groups_BL for _ in range(2)]
    assert not torch.equal(*halves)
    assert torch.equal(policy.start(3).groups_BL, continued(seed=0, skip=300))


def continued(seed: int, skip: int) -> torch.Tensor:
    policy = RandomPolicy(3, 2, seed=seed)
    policy.start(skip // 2)
    policy.start(skip // 2)
    return policy.start(3).groups_BL


def test_given_plans_go_round_in_order() -> None:
    policy = PlanPolicy(torch.tensor([[1], [2], [3]]))
    assert policy.start(2).groups_BL.tolist() == [[1], [2]]
    assert policy.start(1).groups_BL.tolist() == [[3]]
    assert policy.start(3).groups_BL.tolist() == [[1], [2], [3]]
    policy.start(2)
    with pytest.raises(ConfigError, match="Plans for 2 more images are needed, but 1 of 3"):
        policy.start(2)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`groups >= 1` must hold at each site.*\[0, 2\]"):
        FixedPolicy([0, 2])
    with pytest.raises(ConfigError, match="num_sites=0"):
        RandomPolicy(2, 0, seed=0)
    with pytest.raises(ConfigError, match=r"shape \(B, L\).*\(3,\)"):
        PlanPolicy(torch.tensor([1, 2, 3]))
