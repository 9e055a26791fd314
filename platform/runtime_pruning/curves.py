"""Learning curves: what training read of itself, step by step."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

# Pairs of a step and a value, by the name of what was read.
Series: TypeAlias = Mapping[str, Sequence[tuple[int, float]]]


class Curves:
    """Collects readings until someone takes them."""

    def __init__(self) -> None:
        self._series: dict[str, list[tuple[int, float]]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add readings, of names of the glossary; what is no number is left out.

        Args:
            step: on the curve's own axis.
            values: by name.
        """
        for name, value in values.items():
            if math.isfinite(value):
                self._series.setdefault(name, []).append((step, float(value)))

    def take(self) -> Series:
        """Return what was added since the last time."""
        taken, self._series = self._series, {}
        return taken
