"""A network whose best pruning under a budget is known: what constrained agents are tried on.

Removing the share r of a layer saves ``size * r`` of the cost and loses ``need * r**2`` of the
accuracy. With sizes that add up to 1 and a budget b, Lagrange's condition gives the best shares:
``r_t = (1 - b) * (size_t / need_t) / sum(size**2 / need)``, where none of them exceeds 1.

Dimension: T layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OracleLayers:
    """A `LayerwiseNetwork` of formulas; a pruned one is the shares that were removed.

    Attributes:
        sizes: of the layers' costs, adding up to 1.
        needs: accuracy lost by a layer that goes altogether.
    """

    sizes: Sequence[float]
    needs: Sequence[float]

    @property
    def layers_TF(self) -> NDArray[np.float64]:
        """Index of each layer, and its size."""
        return np.stack([np.arange(len(self.sizes)), np.array(self.sizes)], axis=1)

    def prune(self, removed_T: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Return the shares themselves."""
        return removed_T

    def accuracy(self, pruned: NDArray[np.float64], /, *, finetune_steps: int, seed: int) -> float:
        """Return what is left of an accuracy of 1."""
        return 1.0 - float(np.dot(self.needs, pruned**2))

    def size(self, pruned: NDArray[np.float64]) -> float:
        """Return the cost that is left: a `NetworkCost`."""
        return float(np.dot(self.sizes, 1 - pruned))

    def best(self, budget: float) -> tuple[NDArray[np.float64], float]:
        """Return the best shares within a budget, and their accuracy."""
        sizes, needs = np.array(self.sizes), np.array(self.needs)
        shares_T = (1 - budget) * (sizes / needs) / (sizes**2 / needs).sum()
        return shares_T, self.accuracy(shares_T, finetune_steps=0, seed=0)
