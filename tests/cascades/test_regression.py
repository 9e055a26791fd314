"""Learned gains lead to the decisions whose worth is known."""

import numpy as np
import pytest

from pruning_envs import CascadeTable
from pruning_envs.cascade_oracle import best_return
from runtime_pruning.cascades import fit_regression, judge
from runtime_pruning.errors import ConfigError


@pytest.mark.parametrize("penalty", [0.02, 0.2, 0.6, 2.0])
def test_it_earns_the_optimum(table: CascadeTable, penalty: float) -> None:
    chooser = fit_regression(table, penalty, ridge=0.01)
    outcome = judge(table, chooser)
    loss_N = table.losses("error")[np.arange(len(table)), outcome.sets_N]
    earned = -loss_N.mean() - penalty * outcome.cost
    few = CascadeTable(
        log_probabilities_NMK=table.log_probabilities_NMK[:4],
        labels_N=table.labels_N[:4],
        costs_NM=table.costs_NM[:4],
        weights_SM=table.weights_SM,
    )
    assert earned == pytest.approx(best_return(few, penalty), abs=1e-6)
    # Of two members: 1 + 2 * (2 log-probabilities, 3 summaries, 2 flags) terms each.
    assert chooser.macs_per_image == 2 * 15


def test_settings_out_of_range_are_refused(table: CascadeTable) -> None:
    with pytest.raises(ConfigError, match="`penalty >= 0`"):
        fit_regression(table, -1)
    with pytest.raises(ConfigError, match="folds <= images"):
        fit_regression(table, 1, folds=1)
