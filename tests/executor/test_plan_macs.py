"""MACs of plans by formula, worked out by hand."""

from runtime_pruning.executor.plan_macs import PlanMacs
from small_networks import residual


def test_macs_of_each_width() -> None:
    macs = PlanMacs(residual())
    assert macs.dense == 76 + 640 * 8
    assert macs.fraction((1,)) == (76 + 640 * 2) / (76 + 640 * 8)
    assert macs.fraction((4,)) == 1.0
