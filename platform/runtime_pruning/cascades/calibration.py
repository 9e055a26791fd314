"""Temperatures: how sure an answer may be, from images that the member has not learnt on.

Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
Dimensions: N images, K classes.
"""

import numpy as np
import numpy.typing as npt

from pruning_envs.cascade_table import log_softmax

Floats = npt.NDArray[np.float32]
LOWEST, HIGHEST = 0.05, 20.0
_STEPS = 50


def fit_temperature(log_probabilities_NK: Floats, labels_N: npt.NDArray[np.int64]) -> float:
    """Return the temperature of least cross-entropy, in [0.05, 20].

    The cross-entropy is convex in the inverse temperature: Newton's method on that, each step at
    most a doubling or a halving.
    """
    scores_NK = log_probabilities_NK.astype(np.float64)
    right_N = np.take_along_axis(scores_NK, labels_N[:, None], axis=1)[:, 0]
    inverse = 1.0
    for _ in range(_STEPS):
        share_NK = np.exp(log_softmax(inverse * scores_NK))
        mean_N = (share_NK * scores_NK).sum(axis=1)
        slope = (mean_N - right_N).mean()
        curvature = (share_NK * (scores_NK - mean_N[:, None]) ** 2).sum(axis=1).mean()
        wanted = inverse - slope / max(curvature, 1e-12)
        moved = float(np.clip(np.clip(wanted, inverse / 2, inverse * 2), 1 / HIGHEST, 1 / LOWEST))
        if abs(moved - inverse) <= 1e-9 * inverse:
            break
        inverse = moved
    return 1 / inverse


def calibrated(log_probabilities_NMK: Floats, temperatures_M: npt.NDArray[np.float64]) -> Floats:
    """Return log-probabilities at members' temperatures."""
    scaled_NMK = log_probabilities_NMK / temperatures_M[:, None]
    return log_softmax(scaled_NMK).astype(np.float32)
