"""The best that any chooser can earn on a small table: dynamic programming over what can be known.

Images that have answered alike so far cannot be told apart; the optimum decides alike for them.

Dimensions: N images, M members.
"""

import numpy as np
from numpy.typing import NDArray

from pruning_envs.cascade_table import CascadeTable
from pruning_envs.protocols import AnswerLoss


def best_return(
    table: CascadeTable, penalty: float, *, alpha: float = 1.0, loss: AnswerLoss = "error"
) -> float:
    """Return the greatest mean return over the images of a table, their answers seen in full.

    It visits up to N times M! states: for tables of few answers or members. A chooser that sees
    features of the combined answer only may earn less, none more.
    """
    loss_NS = alpha * table.losses(loss)

    def best(rows_R: NDArray[np.int64], members: int) -> float:
        """Return the greatest sum over images that look alike after a set of members."""
        values = [-float(loss_NS[rows_R, members].sum())]
        for member in range(table.num_members):
            if not members >> member & 1:
                cost = penalty * float(table.costs_NM[rows_R, member].sum())
                parts = _alike(table.log_probabilities_NMK[rows_R, member])
                values.append(
                    sum(best(rows_R[part], members | 1 << member) for part in parts) - cost
                )
        return max(values)

    return best(np.arange(len(table)), 0) / len(table)


def hindsight(
    table: CascadeTable, penalty: float, *, alpha: float = 1.0, loss: AnswerLoss = "error"
) -> NDArray[np.float64]:
    """Return ``return_N`` of the best set of members for each image, its label known."""
    return_NS = -alpha * table.losses(loss) - penalty * table.total_costs()
    best_N: NDArray[np.float64] = return_NS.max(axis=1).astype(np.float64)
    return best_N


def _alike(answers_RK: NDArray[np.floating]) -> list[NDArray[np.int64]]:
    """Return the rows of equal answers, one array per answer."""
    _, kind_R = np.unique(answers_RK, axis=0, return_inverse=True)
    return [np.flatnonzero(kind_R == kind) for kind in range(int(kind_R.max()) + 1)]
