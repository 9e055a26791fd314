"""What members of a cascade answered, and what a chooser sees of it.

Dimensions: N images, B images of a batch, M members, K classes, S = 2^M sets of members (bit m of
a set's number says that member m is in it), F features.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pruning_envs.protocols import AnswerLoss

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# How answers become one: by a weighted sum of log-probabilities, or of probabilities.
Pool = Literal["logarithmic", "linear"]

MOST_MEMBERS = 8  # a weight per set of members and member: 2^8 sets
SHOWN = 10  # sorted log-probabilities among the features
FLOOR = -30.0  # log-probabilities below are shown as this


@dataclass(frozen=True, kw_only=True)
class CascadeTable:
    """All answers of all members to some images: the whole environment.

    Attributes:
        log_probabilities_NMK: calibrated answers, nats, float32.
        labels_N: true classes.
        costs_NM: what it costs to run each member on each image, of the reference's cost.
        weights_SM: weight of each member's answer in the combined one, by set; zero for members
            outside the set.
        pool: how answers are combined.

    Raises:
        ValueError: shapes that do not fit, no member or too many, a negative cost, or a label that
            names no class.
    """

    log_probabilities_NMK: Floats
    labels_N: Ints
    costs_NM: Floats
    weights_SM: Floats
    pool: Pool = "logarithmic"

    def __post_init__(self) -> None:
        if self.log_probabilities_NMK.ndim != 3 or not self.log_probabilities_NMK.size:
            raise ValueError(
                "Answers must be of shape (N, M, K), none of them 0, but got "
                f"{self.log_probabilities_NMK.shape}."
            )
        count, members, classes = self.log_probabilities_NMK.shape
        if members > MOST_MEMBERS:
            raise ValueError(f"`members <= {MOST_MEMBERS}` must hold, but got {members}.")
        expected = ((count,), (count, members), (2**members, members))
        got = (self.labels_N.shape, self.costs_NM.shape, self.weights_SM.shape)
        if got != expected:
            raise ValueError(f"Labels, costs and weights must be of {expected}, but got {got}.")
        if not (self.costs_NM >= 0).all():
            raise ValueError(f"Costs must be >= 0, but the least is {self.costs_NM.min()}.")
        if self.labels_N.min() < 0 or self.labels_N.max() >= classes:
            raise ValueError(f"Labels must be in [0, {classes}), but are not.")
        outside_SM = ~members_of(np.arange(2**members), members)
        if self.weights_SM[outside_SM].any():
            raise ValueError("A member outside a set must have no weight in it, but has.")

    @property
    def num_members(self) -> int:
        """M."""
        return int(self.log_probabilities_NMK.shape[1])

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.log_probabilities_NMK.shape[2])

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels_N)

    def combined(self, rows_B: Ints, sets_B: Ints) -> Floats:
        """Return ``log_probabilities_BK`` of the combined answers; without members, of a guess."""
        return combine(self.log_probabilities_NMK[rows_B], self.weights_SM[sets_B], self.pool)

    def features(self, rows_B: Ints, sets_B: Ints) -> Floats:
        """Return ``features_BF`` of what has been answered so far; see `features`."""
        return features(self.log_probabilities_NMK[rows_B], sets_B, self.weights_SM, self.pool)

    def losses(self, kind: AnswerLoss) -> Floats:
        """Return ``loss_NS`` of every image's combined answer by every set of members."""
        rows_N = np.arange(len(self))
        columns = [
            self.combined(rows_N, np.full_like(rows_N, number))[rows_N, self.labels_N]
            for number in range(2**self.num_members)
        ]
        return loss_of(np.stack(columns, axis=1), kind)

    def correct(self) -> Bools:
        """Return ``correct_NS``: where the combined answer of each set of members is right."""
        rows_N = np.arange(len(self))
        columns = [
            self.combined(rows_N, np.full_like(rows_N, number)).argmax(axis=1) == self.labels_N
            for number in range(2**self.num_members)
        ]
        return np.stack(columns, axis=1)

    def total_costs(self) -> Floats:
        """Return ``cost_NS`` of running every set of members on every image."""
        in_SM = members_of(np.arange(2**self.num_members), self.num_members)
        result: Floats = self.costs_NM @ in_SM.T.astype(self.costs_NM.dtype)
        return result


def members_of(sets_B: Ints, num_members: int) -> Bools:
    """Return ``ran_BM``: which members are in sets."""
    result: Bools = (sets_B[:, None] >> np.arange(num_members)) & 1 == 1
    return result


def combine(log_BMK: Floats, weights_BM: Floats, pool: Pool = "logarithmic") -> Floats:
    """Return ``log_probabilities_BK`` of the weighted answers; of a guess without weights."""
    given_BM = weights_BM.astype(log_BMK.dtype)
    if pool == "logarithmic":
        return log_softmax(np.einsum("bmk,bm->bk", log_BMK, given_BM))
    # A trace of a guess: an answer of nobody is one, and no logarithm is of zero.
    trace = 1e-9 / log_BMK.shape[2]
    sum_BK = np.einsum("bmk,bm->bk", np.exp(log_BMK), given_BM) + trace
    result: Floats = np.log(sum_BK / sum_BK.sum(axis=1, keepdims=True))
    return result


def loss_of(log_right_B: Floats, kind: AnswerLoss) -> Floats:
    """Return ``loss_B`` of answers, from the log-probabilities of the right classes.

    Raises:
        ValueError: no such loss.
    """
    if kind not in get_args(AnswerLoss):
        raise ValueError(f"`loss` must be one of {get_args(AnswerLoss)}, but got {kind!r}.")
    return -np.expm1(log_right_B) if kind == "error" else -log_right_B


def log_softmax(scores_BK: Floats) -> Floats:
    """Return the logarithms of probabilities, computed without overflow."""
    shifted_BK = scores_BK - scores_BK.max(axis=-1, keepdims=True)
    result: Floats = shifted_BK - np.log(np.exp(shifted_BK).sum(axis=-1, keepdims=True))
    return result


def shown_classes(num_classes: int) -> int:
    """Return how many sorted log-probabilities are features."""
    return min(SHOWN, num_classes)


def num_features(num_members: int, num_classes: int) -> int:
    """Return F."""
    return shown_classes(num_classes) + 3 + num_members


def features(
    log_BMK: Floats, sets_B: Ints, weights_SM: Floats, pool: Pool = "logarithmic"
) -> Floats:
    """Return ``features_BF``, float32: what a chooser may look at.

    The combined answer's greatest log-probabilities, sorted (at least `FLOOR`); the margin between
    the two likeliest classes' probabilities; the entropy in nats; the share of the members run that
    agree with the combined answer; for each member, 1 where it has run. Before any has, all are
    zero.
    """
    members, classes = log_BMK.shape[1:]
    ran_BM = members_of(sets_B, members)
    answer_BK = combine(log_BMK, weights_SM[sets_B], pool)
    sorted_BT = -np.sort(-answer_BK, axis=1)[:, : shown_classes(classes)]
    top_BT = np.exp(sorted_BT)
    entropy_B = -(np.exp(answer_BK) * np.maximum(answer_BK, FLOOR)).sum(axis=1)
    same_BM = (log_BMK.argmax(axis=2) == answer_BK.argmax(axis=1)[:, None]) & ran_BM
    agreement_B = same_BM.sum(axis=1) / np.maximum(ran_BM.sum(axis=1), 1)
    seen_BF = np.concatenate(
        [
            np.maximum(sorted_BT, FLOOR),
            (top_BT[:, 0] - top_BT[:, 1])[:, None],
            entropy_B[:, None],
            agreement_B[:, None],
            ran_BM,
        ],
        axis=1,
    )
    seen_BF[sets_B == 0] = 0
    return seen_BF.astype(np.float32)
