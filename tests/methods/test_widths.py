"""Widths within a budget, worked out by hand on two layers."""

import pytest
import torch
from torch import nn

from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods.widths import (
    allowed,
    best_channels,
    ranked,
    uniform,
    widest_within,
)


@pytest.fixture
def macs() -> PrunedMacs:
    """Four pixels, 8 and 4 channels of one tap each, two classes: 4 (8 + 8 * 4) + 2 * 4 = 168."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 1),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    return PrunedMacs(network, (1, 2, 2))


def test_widths_are_multiples_and_never_none() -> None:
    assert [allowed(width, 10, 4) for width in (0, 5.9, 6.1, 9.9)] == [4, 4, 8, 8]
    assert allowed(10, 10, 4) == 8
    assert allowed(3, 3, 4) == 3


def test_the_widest_uniform_network_within_a_budget(macs: PrunedMacs) -> None:
    """Widths (4, 2) cost 4 (4 + 8) + 4 = 52, (5, 2) 64, (5, 3) 86, (6, 3) 102."""
    assert macs.dense == 168
    assert widest_within(macs, 52, uniform(macs.groups, 1)) == [4, 2]
    assert widest_within(macs, 85, uniform(macs.groups, 1)) == [5, 2]
    assert widest_within(macs, 168, uniform(macs.groups, 1)) == [8, 4]
    with pytest.raises(ConfigError, match=r"costs 0\.060 .* a share of 0\.048 cannot be reached"):
        widest_within(macs, 8, uniform(macs.groups, 1))


def test_ranked_widths_take_the_highest_scores_of_all(macs: PrunedMacs) -> None:
    scores = {"0": torch.tensor([9.0, 1, 8, 1, 7, 1, 6, 1]), "1": torch.tensor([2.0, 5, 2, 2])}
    family = ranked(macs.groups, scores, 1, least=0.25)
    assert family(0) == [2, 1]
    assert family(5 / 12) == [4, 1]
    assert family(8 / 12) == [4, 4]
    assert widest_within(macs, 40, family) == [4, 1]  # 4 (4 + 4) + 2 = 34
    assert best_channels(scores["0"], 3) == [0, 2, 4]
    assert best_channels(scores["1"], 2) == [0, 1]
