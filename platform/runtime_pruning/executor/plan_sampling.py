"""Random plans whose MACs are about a fraction of the dense ones.

Dimensions: L sites.
"""

import statistics
from collections.abc import Callable

import torch

PLAN_TRIES = 40


def plans_near(
    fraction_of: Callable[[tuple[int, ...]], float],
    *,
    sites: int,
    groups: int,
    fraction: float,
    batch: int,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Return random plans whose MACs are about a fraction of the dense ones.

    Counts are drawn around a level that is moved until the mean fits; each image takes, of a few
    draws, the one that is nearest.
    """
    low, high = 0.0, 1.0
    for _ in range(12):
        level = (low + high) / 2
        drawn = [_draw(level, sites, groups, generator) for _ in range(PLAN_TRIES)]
        mean = statistics.fmean(fraction_of(plan) for plan in drawn)
        low, high = (level, high) if mean < fraction else (low, level)
    plans = []
    for _ in range(batch):
        drawn = [_draw(level, sites, groups, generator) for _ in range(8)]
        plans.append(min(drawn, key=lambda plan: abs(fraction_of(plan) - fraction)))
    return plans


def _draw(level: float, sites: int, groups: int, generator: torch.Generator) -> tuple[int, ...]:
    """Return a plan; 0 is the least everywhere, 1 the most, between them each site varies."""
    spread = min(level, 1 - level)
    noise_L = (torch.rand(sites, generator=generator) * 2 - 1) * spread
    counts_L = ((level + noise_L) * (groups - 1)).round().long() + 1
    return tuple(counts_L.clamp(1, groups).tolist())
