"""Who goes on by regression: what running a member would gain, from the answers so far.

All rewards are known, so that the gains can be learned backwards, as in Longstaff and Schwartz,
"Valuing American Options by Simulation", 2001: from the sets of most members down, ridge regression
of what each further member, and the best decisions after it, earned over stopping. Decisions that
targets rest on are made by a fit on other images (cross-fitting).

Dimensions: N images, B images that are open, F features, P terms of the regression, M members, S
sets of members.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pruning_envs import CascadeTable
from pruning_envs.protocols import AnswerLoss
from runtime_pruning.cascades.choosing import STOP, Ints
from runtime_pruning.errors import ConfigError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RegressionChooser:
    """Runs the member of greatest expected gain, where there is one above zero.

    Attributes:
        penalty: that the gains were learned under.
        means_SF, scales_SF: of the features, by set of members that ran.
        coefficients_SMP: of the gains; of members in the set, of no meaning.
    """

    penalty: float
    means_SF: Floats
    scales_SF: Floats
    coefficients_SMP: Floats

    @property
    def macs_per_image(self) -> int:
        """Of one decision: a linear function per member."""
        return int(np.prod(self.coefficients_SMP.shape[1:]))

    def actions(self, features_BF: npt.NDArray[np.float32], sets_B: Ints) -> Ints:
        """Return ``action_B``; see `Chooser`."""
        members = self.coefficients_SMP.shape[1]
        terms_BP = _terms(features_BF, self.means_SF[sets_B], self.scales_SF[sets_B])
        gain_BM = np.einsum("bp,bmp->bm", terms_BP, self.coefficients_SMP[sets_B])
        gain_BM[(sets_B[:, None] >> np.arange(members)) & 1 == 1] = -np.inf
        best_B = gain_BM.argmax(axis=1)
        return np.where(gain_BM.max(axis=1) > 0, best_B + 1, STOP)


def fit_regression(
    table: CascadeTable,
    penalty: float,
    *,
    loss: AnswerLoss = "error",
    ridge: float = 1.0,
    folds: int = 5,
    seed: int = 0,
) -> RegressionChooser:
    """Return a chooser for one penalty.

    Args:
        table: of the policy split.
        penalty: loss that a unit of cost is worth.
        loss: of the answer.
        ridge: weight of the squared coefficients, in images.
        folds: of the cross-fitting.
        seed: of the folds.

    Raises:
        ConfigError: a setting out of range.
    """
    if penalty < 0 or ridge < 0 or not 2 <= folds <= len(table):
        raise ConfigError(
            "`penalty >= 0`, `ridge >= 0` and `2 <= folds <= images` must hold, but got "
            f"{(penalty, ridge, folds)}."
        )
    fold_N = np.random.default_rng(seed).permutation(len(table)) % folds
    rows_N, members = np.arange(len(table)), table.num_members
    loss_NS = table.losses(loss).astype(np.float64)
    width = table.features(rows_N[:1], rows_N[:1]).shape[1]
    sets = 2**members
    means_SF: Floats = np.zeros((sets, width))
    scales_SF: Floats = np.ones((sets, width))
    coefficients_SMP = np.zeros((sets, members, 2 * width + 1))
    earned_NS: Floats = -loss_NS  # by the best decisions from each set on
    for number in sorted(range(sets - 1), key=int.bit_count, reverse=True):
        seen_NF = table.features(rows_N, np.full_like(rows_N, number))
        spread_F = seen_NF.std(axis=0)
        means_SF[number] = seen_NF.mean(axis=0)
        scales_SF[number] = np.where(spread_F < 1e-6, 1, spread_F)
        terms_NP = _terms(seen_NF, means_SF[number], scales_SF[number])
        outside = [member for member in range(members) if not number >> member & 1]
        gain_NO = np.stack(
            [
                earned_NS[:, number | 1 << member]
                - penalty * table.costs_NM[:, member]
                + loss_NS[:, number]
                for member in outside
            ],
            axis=1,
        )
        coefficients_SMP[number, outside] = _ridge(terms_NP, gain_NO, ridge).T
        expected_NO = np.empty_like(gain_NO)
        for fold in range(folds):
            own_N = fold_N == fold
            expected_NO[own_N] = terms_NP[own_N] @ _ridge(terms_NP[~own_N], gain_NO[~own_N], ridge)
        best_N = expected_NO.argmax(axis=1)
        goes_N = expected_NO[rows_N, best_N] > 0
        earned_NS[:, number] += np.where(goes_N, gain_NO[rows_N, best_N], 0)
    return RegressionChooser(
        penalty=penalty,
        means_SF=means_SF,
        scales_SF=scales_SF,
        coefficients_SMP=coefficients_SMP,
    )


def _terms(features_BF: npt.NDArray[np.float32], means_BF: Floats, scales_BF: Floats) -> Floats:
    """Return ``terms_BP``: one, the standardised features, and their squares."""
    standard_BF = np.clip((features_BF - means_BF) / scales_BF, -10, 10)
    terms_BP: Floats = np.concatenate(
        [np.ones((len(features_BF), 1)), standard_BF, standard_BF**2], axis=1
    )
    return terms_BP


def _ridge(terms_NP: Floats, gain_NO: Floats, ridge: float) -> Floats:
    """Return ``coefficients_PO`` of least squares, all but the constant held small."""
    held_P = np.full(terms_NP.shape[1], ridge + 1e-9)
    held_P[0] = 0
    normal_PP = terms_NP.T @ terms_NP + np.diag(held_P)
    return np.asarray(np.linalg.solve(normal_PP, terms_NP.T @ gain_NO), np.float64)
