"""Predicted against measured, by hand on times that are known."""

from typing import Any

import numpy as np
import pytest

from runtime_pruning.cost import prediction_error
from runtime_pruning.cost.prediction_error import predicted_against_measured
from runtime_pruning.errors import ConfigError


def correlation(one: list[float], other: list[float]) -> float:
    return prediction_error._rank_correlation(np.array(one), np.array(other))


def test_rank_correlation_by_hand() -> None:
    assert correlation([1, 2, 3], [2, 5, 9]) == 1
    assert correlation([1, 2, 3], [3, 2, 1]) == -1
    # Of six pairs five agree and one does not.
    assert correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)


def test_where_all_times_are_alike_nothing_is_ranked() -> None:
    assert correlation([1, 1], [1, 2]) == 0


def test_mean_error_by_hand() -> None:
    predicted_P, measured_P = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    assert prediction_error._mape(predicted_P, measured_P) == 0.5


def test_one_plan_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(ConfigError, match="`plans >= 2` and `rounds >= 1` must hold, got 1 and 7"):
        predicted_against_measured(nothing, nothing, plans=1)
