"""Several answers made one: calibrated log-probabilities, weighted and added.

Dimensions: N images, M members, K classes, S = 2^M sets of members (bit m: member m is in it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from pruning_envs import CascadeTable
from pruning_envs.cascade_table import MOST_MEMBERS, Pool, log_softmax, members_of
from runtime_pruning.cascades.answers import Answers
from runtime_pruning.cascades.calibration import calibrated, fit_temperature
from runtime_pruning.errors import ConfigError

# "weighted": log-probabilities are added with weights fitted by cross-entropy; "sum": with equal
# weights; "mean": probabilities are averaged; "last": the last member's answer counts.
Rule = Literal["weighted", "sum", "mean", "last"]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What makes one answer of several.

    Attributes:
        temperatures_M: of the members.
        weights_SM: of members' calibrated answers, by set of members that ran.
        pool: whether log-probabilities or probabilities are added.
    """

    temperatures_M: npt.NDArray[np.float64]
    weights_SM: npt.NDArray[np.float64]
    pool: Pool = "logarithmic"

    def of(self, members: Sequence[int]) -> "Combination":
        """Return what is left of it where no other members run.

        Args:
            members: numbers of those that stay, in their new order.
        """
        chosen = list(members)
        in_SM = members_of(np.arange(2 ** len(chosen)), len(chosen))
        sets_S = (in_SM.astype(np.int64) << np.array(chosen, np.int64)).sum(axis=1)
        return Combination(
            temperatures_M=self.temperatures_M[chosen],
            weights_SM=self.weights_SM[sets_S][:, chosen],
            pool=self.pool,
        )

    def table(self, answers: Answers, reference_macs: float) -> CascadeTable:
        """Return the table that choosers decide on; costs are shares of ``reference_macs``.

        Raises:
            ConfigError: answers of another number of members.
        """
        if answers.num_members != len(self.temperatures_M):
            raise ConfigError(
                f"Answers of {len(self.temperatures_M)} members are needed, but got "
                f"{answers.num_members}."
            )
        return CascadeTable(
            log_probabilities_NMK=calibrated(answers.log_probabilities_NMK, self.temperatures_M),
            labels_N=answers.labels_N,
            costs_NM=(answers.macs_NM / reference_macs).astype(np.float32),
            weights_SM=self.weights_SM,
            pool=self.pool,
        )


def fit_combination(answers: Answers, rule: Rule = "weighted") -> Combination:
    """Return temperatures and weights of least cross-entropy on images, those of the policy split.

    Args:
        answers: members in the order in which a cascade would run them.
        rule: see `Rule`.

    Raises:
        ConfigError: no such rule, or too many members.
    """
    members = answers.num_members
    if rule not in get_args(Rule):
        raise ConfigError(f"`combine` must be one of {get_args(Rule)}, but got {rule!r}.")
    if members > MOST_MEMBERS:
        raise ConfigError(f"`members <= {MOST_MEMBERS}` must hold, but got {members}.")
    temperatures_M = np.array(
        [
            fit_temperature(answers.log_probabilities_NMK[:, member], answers.labels_N)
            for member in range(members)
        ]
    )
    in_SM = members_of(np.arange(2**members), members)
    weights_SM = in_SM.astype(np.float64)
    if rule == "last":
        weights_SM[:, :-1] *= np.cumsum(in_SM[:, ::-1], axis=1)[:, ::-1][:, 1:] == 0
    elif rule == "weighted":
        ready_NMK = calibrated(answers.log_probabilities_NMK, temperatures_M)
        for number in np.flatnonzero(in_SM.sum(axis=1) > 1):
            own_M = in_SM[number]
            weights_SM[number, own_M] = fit_weights(ready_NMK[:, own_M], answers.labels_N)
    pool: Pool = "linear" if rule == "mean" else "logarithmic"
    return Combination(temperatures_M=temperatures_M, weights_SM=weights_SM, pool=pool)


def fit_weights(
    log_probabilities_NMK: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return ``weights_M``, none negative, of least cross-entropy: a convex problem."""
    scores_NMK = log_probabilities_NMK.astype(np.float64)
    right_NM = np.take_along_axis(scores_NMK, labels_N[:, None, None], axis=2)[:, :, 0]

    def cross_entropy(weights_M: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        log_NK = log_softmax(np.einsum("nmk,m->nk", scores_NMK, weights_M))
        value = -np.take_along_axis(log_NK, labels_N[:, None], axis=1).mean()
        expected_NM = np.einsum("nmk,nk->nm", scores_NMK, np.exp(log_NK))
        return float(value), (expected_NM - right_NM).mean(axis=0)

    members = scores_NMK.shape[1]
    start_M = np.full(members, 1 / members)
    found = minimize(
        cross_entropy, start_M, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * members
    )
    weights_M: npt.NDArray[np.float64] = found.x
    return weights_M
