"""The search finds the cascade that is best by hand."""

import numpy as np
import pytest

from pruning_envs import CascadeTable
from runtime_pruning.cascades import ThresholdChooser, best_of, judge, search_thresholds
from runtime_pruning.errors import ConfigError


def test_who_goes_on() -> None:
    chooser = ThresholdChooser((0, 2, 1), (0.6, 0.9))
    confidence_B = np.array([0.0, 0.5, 0.7, 0.5, 0.8, 0.95, 0.1])
    features_BF = np.log(np.maximum(confidence_B, 1e-9)).astype(np.float32)[:, None]
    sets_B = np.array([0b000, 0b001, 0b001, 0b101, 0b101, 0b101, 0b111])
    assert chooser.actions(features_BF, sets_B).tolist() == [1, 3, 0, 2, 2, 0, 0]


def test_the_whole_curve_is_found(table: CascadeTable) -> None:
    found = search_thresholds(table)
    shown = [(judge(table, each).accuracy, judge(table, each).cost) for each in found]
    # The cheap member alone is right on images 0 and 1; with the dear one for the others, on all.
    assert shown == [(0.5, 0.25), (1.0, 0.75)]
    assert [each.order for each in found] == [(0,), (0, 1)]
    assert 0.55 < found[1].thresholds[0] <= 0.9


def test_grid_and_judge_agree() -> None:
    rng = np.random.default_rng(0)
    log_NMK = rng.normal(0, 2, (300, 3, 4))
    labels_N = rng.integers(0, 4, 300)
    log_NMK[np.arange(300)[:, None], np.arange(3), labels_N[:, None]] += np.array([1, 2, 3])
    log_NMK -= np.log(np.exp(log_NMK).sum(axis=2, keepdims=True))
    weights_SM = (np.arange(8)[:, None] >> np.arange(3)) & 1
    table = CascadeTable(
        log_probabilities_NMK=log_NMK.astype(np.float32),
        labels_N=labels_N,
        costs_NM=np.tile(np.array([0.2, 0.5, 1.0], np.float32), (300, 1)),
        weights_SM=weights_SM.astype(np.float32),
    )
    found = search_thresholds(table, points=12)
    assert 2 <= len(found) <= 12
    outcomes = [judge(table, each) for each in found]
    cost_C = [outcome.cost for outcome in outcomes]
    accuracy_C = [outcome.accuracy for outcome in outcomes]
    assert cost_C == sorted(cost_C)
    assert accuracy_C == sorted(accuracy_C)  # each is worth its cost
    again = best_of(found, table)
    assert [row[1:] for row in again] == list(zip(accuracy_C, cost_C, strict=True))


def test_cascades_that_cannot_be_are_refused(table: CascadeTable) -> None:
    with pytest.raises(ConfigError, match="each once"):
        ThresholdChooser((0, 0), (0.5,))
    with pytest.raises(ConfigError, match="1 thresholds are needed"):
        ThresholdChooser((0, 1), ())
    with pytest.raises(ConfigError, match="0 <= threshold <= 1"):
        ThresholdChooser((0, 1), (1.5,))
    with pytest.raises(ConfigError, match="`points >= 2`"):
        search_thresholds(table, points=1)
