"""MACs of a plan, by formula.

Dimensions: L sites.
"""

import torch

from runtime_pruning.network import PrunableNetwork

_MOST_KEPT = 4096


class PlanMacs:
    """Analytic MACs of plans of a network, per image.

    Args:
        network: whose plans are priced.

    Attributes:
        dense: of one pass at full width.
    """

    def __init__(self, network: PrunableNetwork) -> None:
        self._network = network
        self._fractions: dict[tuple[int, ...], float] = {}
        self.dense = self._macs(network.uniform(network.groups))

    def fraction(self, plan: tuple[int, ...]) -> float:
        """Return a plan's share of the dense MACs."""
        found = self._fractions.get(plan)
        if found is None:
            if len(self._fractions) >= _MOST_KEPT:
                self._fractions.clear()
            found = self._fractions[plan] = self._macs(plan) / self.dense
        return found

    def _macs(self, plan: tuple[int, ...]) -> int:
        channels_1L = self._network.channels(torch.tensor([plan]))
        return sum(int(unit.macs(channels_1L)[0]) for unit in self._network.priced_units)
