"""Which mode pays, and how many images: measured on this device.

Dimensions: B images, L sites.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from runtime_pruning.timing.turns import TIE_RATIO


@dataclass(frozen=True)
class ModeTable:
    """Times of each mode, as ratios to dense, and the choice that follows.

    Attributes:
        threads: of PyTorch when it was measured.
        ratios: time over dense time, by (batch, MAC fraction), by mode.
    """

    threads: int
    ratios: Mapping[tuple[int, float], Mapping[str, float]]
    _chosen: dict[tuple[int, float, str | None], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _always: dict[tuple[int, str | None], str | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def always(self, batch: int, steady: str | None = None) -> str | None:
        """Return what `choose` returns whatever the fraction is; None: it matters."""
        key = (batch, steady)
        if key not in self._always:
            chosen = {self.choose(batch, percent / 100, steady) for percent in range(101)}
            self._always[key] = chosen.pop() if len(chosen) == 1 else None
        return self._always[key]

    def choose(self, batch: int, fraction: float, steady: str | None = None) -> str:
        """Return the fastest mode, or one that is to be taken where it is about as fast.

        The answer is kept, for fractions to a hundredth: it is asked for with each batch.
        """
        key = (batch, round(fraction, 2), steady)
        found = self._chosen.get(key)
        if found is None:
            modes = self.at(batch, key[1])
            found = min(modes, key=modes.__getitem__)
            if steady is not None and modes.get(steady, math.inf) <= TIE_RATIO * modes[found]:
                found = steady
            self._chosen[key] = found
        return found

    def at(self, batch: int, fraction: float) -> dict[str, float]:
        """Return each mode's ratio at the nearest measured batch, in octaves.

        Between measured fractions it is interpolated; beyond them it is that of the last.
        """
        nearest = min({key[0] for key in self.ratios}, key=lambda b: abs(math.log2(b / batch)))
        rows = sorted((known, row) for (b, known), row in self.ratios.items() if b == nearest)
        fractions = [known for known, _ in rows]
        return {
            mode: float(np.interp(fraction, fractions, [row[mode] for _, row in rows]))
            for mode in rows[0][1]
        }

    def table(self) -> str:
        """Return the ratios as a Markdown table."""
        modes = sorted({mode for row in self.ratios.values() for mode in row})
        lines = [
            "| batch | MAC fraction | " + " | ".join(modes) + " | fastest |",
            "|---" * (len(modes) + 3) + "|",
        ]
        for (batch, fraction), row in sorted(self.ratios.items()):
            cells = [f"{row[mode]:.2f}" if mode in row else "" for mode in modes]
            fastest = min(row, key=row.__getitem__)
            lines.append(f"| {batch} | {fraction:.2f} | " + " | ".join(cells) + f" | {fastest} |")
        return "\n".join(lines)
