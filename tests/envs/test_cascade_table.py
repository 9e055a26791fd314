"""A table of answers by hand: losses, costs, and what a chooser sees of them."""

from typing import Any

import numpy as np
import pytest
from two_members import LABELS, table

from pruning_envs.cascade_table import features


def test_losses_and_costs_by_hand() -> None:
    expected = [[0.5, 0.1, 0.1, 0.1]] * 2 + [[0.5, 0.5, 0.1, 0.1]] * 2
    np.testing.assert_allclose(table().losses("error"), expected, rtol=1e-5)
    assert table().total_costs().tolist() == [[0, 0.25, 1, 1.25]] * 4
    assert table().correct()[:, 3].tolist() == [True] * 4


def test_features_by_hand() -> None:
    three = np.log(np.array([[[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]], np.float32))
    weights_SM = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    none, one, both = (features(three, np.array([s]), weights_SM)[0] for s in (0, 1, 3))
    assert none.tolist() == [0] * 8
    entropy = -(0.2 * np.log(0.2) + 0.7 * np.log(0.7) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(one, [*np.log([0.7, 0.2, 0.1]), 0.5, entropy, 1, 1, 0], rtol=1e-5)
    # Products .12, .21, .01 of .34: of the two that ran, member 0 alone says class 1.
    np.testing.assert_allclose(both[:3], np.log([0.21 / 0.34, 0.12 / 0.34, 0.01 / 0.34]), rtol=1e-5)
    assert both[5:].tolist() == [0.5, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels_N": np.array([0, 1, 0, 2])}, r"Labels must be in \[0, 2\)"),
        ({"labels_N": LABELS[:3]}, "must be of"),
        ({"costs_NM": np.full((4, 2), -1.0)}, "Costs must be >= 0"),
        ({"weights_SM": np.ones((4, 2))}, "no weight"),
        ({"log_probabilities_NMK": np.zeros((4, 0, 2))}, "none of them 0"),
    ],
)
def test_a_table_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(**changes)
