"""What decides who runs next, and what its decisions amount to on a table of answers.

Dimensions: N images, B images that are still open, F features, S sets of members.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pruning_envs import CascadeTable

Ints = npt.NDArray[np.int64]
STOP = 0


class Chooser(Protocol):
    """Decides for images one by one, whatever their neighbours in a batch."""

    @property
    def macs_per_image(self) -> int:
        """What one decision costs."""
        ...

    def actions(self, features_BF: npt.NDArray[np.float32], sets_B: Ints) -> Ints:
        """Return ``action_B``: 0 to stop, m + 1 to run member m.

        Args:
            features_BF: of the combined answers so far, see `pruning_envs.cascade_table.features`.
            sets_B: members that have run, member m as bit m.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a chooser did to each image.

    Attributes:
        sets_N: members that ran.
        correct_N: whether the combined answer is right.
        costs_N: of the members that ran, in the table's unit.
        decisions_N: how many were taken.
    """

    sets_N: Ints
    correct_N: npt.NDArray[np.bool_]
    costs_N: npt.NDArray[np.float64]
    decisions_N: Ints

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct_N.mean())

    @property
    def cost(self) -> float:
        """Mean over the images."""
        return float(self.costs_N.mean())


def run(table: CascadeTable, chooser: Chooser) -> tuple[Ints, Ints]:
    """Return ``sets_N``, the members that run on each image, and ``decisions_N``.

    As in `Cascade-v0`, a member that has run is not run again: an action that says so stops.
    """
    sets_N = np.zeros(len(table), np.int64)
    decisions_N = np.zeros(len(table), np.int64)
    open_B = np.arange(len(table))
    while len(open_B):
        sets_B = sets_N[open_B]
        actions_B = chooser.actions(table.features(open_B, sets_B), sets_B)
        decisions_N[open_B] += 1
        bits_B = np.where(actions_B > STOP, 1 << np.maximum(actions_B - 1, 0), 0)
        new_B = (bits_B > 0) & (sets_B & bits_B == 0)
        open_B = open_B[new_B]
        sets_N[open_B] |= bits_B[new_B]
        open_B = open_B[sets_N[open_B] < 2**table.num_members - 1]
    return sets_N, decisions_N


def judge(table: CascadeTable, chooser: Chooser) -> Outcome:
    """Return what a chooser does to the images of a table."""
    sets_N, decisions_N = run(table, chooser)
    rows_N = np.arange(len(table))
    answer_NK = table.combined(rows_N, sets_N)
    return Outcome(
        sets_N=sets_N,
        correct_N=answer_NK.argmax(axis=1) == table.labels_N,
        costs_N=table.total_costs()[rows_N, sets_N].astype(np.float64),
        decisions_N=decisions_N,
    )
