"""Random plans near a fraction of MACs."""

import pytest
import torch

from runtime_pruning.executor.plan_sampling import plans_near


@pytest.mark.parametrize("fraction", [0.25, 0.6, 1.0])
def test_plans_come_near_a_fraction(fraction: float) -> None:
    """Each site's group is worth the same, so that a plan's fraction is its mean over four."""

    def share(plan: tuple[int, ...]) -> float:
        return sum(plan) / (4 * len(plan))

    drawn = plans_near(
        share,
        sites=12,
        groups=4,
        fraction=fraction,
        batch=8,
        generator=torch.Generator().manual_seed(0),
    )
    assert len(drawn) == 8
    assert all(1 <= count <= 4 for plan in drawn for count in plan)
    assert sum(map(share, drawn)) / 8 == pytest.approx(fraction, abs=0.05)
