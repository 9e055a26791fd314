"""The temperature that answers were drawn at is found again."""

import numpy as np
import pytest

from pruning_envs.cascade_table import log_softmax
from runtime_pruning.cascades.calibration import calibrated, fit_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_undone(temperature: float) -> None:
    rng = np.random.default_rng(0)
    true_NK = log_softmax(rng.normal(0, 2, (20_000, 5)))
    labels_N = (rng.random((20_000, 1)) > np.exp(true_NK).cumsum(axis=1)).sum(axis=1)
    told_NK = log_softmax(true_NK * temperature).astype(np.float32)
    assert fit_temperature(told_NK, labels_N) == pytest.approx(temperature, rel=0.05)


def test_it_is_the_least_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    log_NK, labels_N = log_softmax(rng.normal(0, 3, (300, 4))), rng.integers(0, 4, 300)
    labels_N[:200] = log_NK[:200].argmax(axis=1)

    def loss(temperature: float) -> float:
        return -float(log_softmax(log_NK / temperature)[np.arange(300), labels_N].mean())

    found = fit_temperature(log_NK.astype(np.float32), labels_N)
    assert loss(found) <= min(loss(each) for each in np.geomspace(0.1, 10, 200)) + 1e-7


def test_what_is_always_right_is_made_as_sure_as_may_be() -> None:
    log_NK = np.log(np.array([[0.6, 0.4], [0.4, 0.6]], np.float32))
    assert fit_temperature(log_NK, np.array([0, 1])) == pytest.approx(0.05)


def test_members_are_calibrated_each_by_its_own() -> None:
    log_NMK = np.log(np.array([[[0.8, 0.2], [0.8, 0.2]]], np.float32))
    ready = np.exp(calibrated(log_NMK, np.array([1.0, 2.0])))
    # The square roots of .8 and .2 are as 2 to 1.
    np.testing.assert_allclose(ready, [[[0.8, 0.2], [2 / 3, 1 / 3]]], rtol=1e-5)
