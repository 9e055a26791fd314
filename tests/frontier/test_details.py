"""Counts of a record, by hand."""

import numpy as np
import pytest

from runtime_pruning.frontier import Record
from runtime_pruning.frontier.details import BINS, Details, Spent, class_loss


def record(predictions: list[int], macs: list[int]) -> Record:
    count = len(macs)
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(count) + 10,
        labels_N=np.arange(count) % 2,
        predictions_N=np.array(predictions),
        losses_N=np.zeros(count, np.float32),
        channels_NL=np.stack([np.full(count, 8), np.arange(count) // 2 * 4], axis=1),
        executed_macs_N=np.array(macs),
    )


def test_counts_by_hand() -> None:
    details = Details.of(record([0, 1, 1, 1], [100, 300, 200, 100]))
    assert details.class_images == (2, 2)
    assert details.class_right == (1, 2)
    assert details.class_accuracy == (0.5, 1.0)
    assert details.sites == ({8: 4}, {0: 2, 4: 2})
    assert (details.costs.low, details.costs.high) == (100, 300)
    assert len(details.costs.images) == BINS
    assert [n for n in details.costs.images if n] == [2, 1, 1]
    assert [spent.image_id for spent in details.least] == [10, 13, 12, 11]
    assert details.most[0] == Spent(image_id=11, macs=300, label=1, prediction=1)
    assert [spent.image_id for spent in details.most] == [11, 12, 10, 13]


def test_a_policy_that_spends_alike_has_no_extremes() -> None:
    details = Details.of(record([0, 1], [100, 100]))
    assert (details.least, details.most) == ((), ())
    assert sum(details.costs.images) == 2


def test_the_worst_class_counts() -> None:
    dense = Details.of(record([0, 1, 0, 1], [9] * 4))
    point = Details.of(record([0, 0, 1, 1], [5] * 4))
    assert class_loss(point, dense) == 0.5
    assert class_loss(dense, point) == -0.5
    mixed = Details.of(record([0, 0, 0, 0], [5] * 4))
    assert class_loss(mixed, dense) == pytest.approx(1.0)
