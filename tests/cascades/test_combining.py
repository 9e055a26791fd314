"""Several answers made one, by rules worked out by hand."""

from typing import Any

import numpy as np
import pytest

from pruning_envs.cascade_table import log_softmax
from runtime_pruning.cascades import Answers, align, fit_combination
from runtime_pruning.cascades.combining import fit_weights
from runtime_pruning.errors import ConfigError

LABELS = [0, 1, 0]


def answers(record: Any) -> Answers:
    first = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    second = [[0.6, 0.4], [0.7, 0.3], [0.8, 0.2]]
    return align([record(first, LABELS, 100), record(second, LABELS, 300)])


def test_weights_by_set_and_rule(record: Any) -> None:
    three = align([record([[0.6, 0.4], [0.3, 0.7]], [0, 0], macs) for macs in (1, 2, 3)])
    last = fit_combination(three, "last").weights_SM
    # Sets 0 to 7: none, 0, 1, 01, 2, 02, 12, 012.
    assert last.argmax(axis=1)[1:].tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert last.sum(axis=1).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert fit_combination(three, "sum").weights_SM[5].tolist() == [1, 0, 1]


def test_probabilities_are_averaged_or_multiplied(record: Any) -> None:
    for rule, expected in (("mean", 0.5 * (0.9 + 0.6)), ("sum", 0.54 / (0.54 + 0.04))):
        made = fit_combination(answers(record), rule)  # type: ignore[arg-type]
        object.__setattr__(made, "temperatures_M", np.ones(2))
        table = made.table(answers(record), 400)
        share_K = np.exp(table.combined(np.array([0]), np.array([3])))[0]
        assert share_K[0] == pytest.approx(expected, rel=1e-5)
        assert table.costs_NM.tolist() == [[0.25, 0.75]] * 3


def test_one_who_knows_nothing_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    knows_NK = log_softmax(rng.normal(0, 2, (4000, 3)))
    labels_N = (rng.random((4000, 1)) > np.exp(knows_NK).cumsum(axis=1)).sum(axis=1)
    noise_NK = log_softmax(rng.normal(0, 2, (4000, 3)))
    both_NMK = np.stack([knows_NK, noise_NK], axis=1).astype(np.float32)
    weights_M = fit_weights(both_NMK, labels_N)
    assert weights_M.tolist() == pytest.approx([1, 0], abs=0.06)


def test_fitted_weights_are_no_worse_than_equal_ones(record: Any) -> None:
    rng = np.random.default_rng(2)
    labels_N = rng.integers(0, 4, 500)
    members = []
    for skill in (1.0, 2.0):
        scores_NK = rng.normal(0, 1, (500, 4))
        scores_NK[np.arange(500), labels_N] += skill
        members.append(record(np.exp(log_softmax(scores_NK)), labels_N))
    given = align(members)
    fitted = fit_combination(given, "weighted").table(given, 1)
    equal = fit_combination(given, "sum").table(given, 1)
    gain = equal.losses("cross-entropy")[:, 3].mean() - fitted.losses("cross-entropy")[:, 3].mean()
    assert gain > 0


def test_what_does_not_fit_is_refused(record: Any) -> None:
    made = fit_combination(answers(record))
    with pytest.raises(ConfigError, match="Answers of 2 members are needed, but got 1"):
        made.table(align([record([[0.6, 0.4]], [0])]), 1)
    with pytest.raises(ConfigError, match="`combine` must be one of"):
        fit_combination(answers(record), "vote")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`members <= 8`"):
        fit_combination(align([record([[0.6, 0.4]], [0])] * 9))
