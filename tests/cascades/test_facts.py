"""A cascade's record says what it does: worked out by hand, and held against the executor."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime_pruning.cascades import (
    CascadeExecutor,
    CascadeMember,
    Combination,
    MemberAnswer,
    ThresholdChooser,
    cascade_record,
    fit_regression,
    record_of_sets,
)
from runtime_pruning.cascades.answers import align
from runtime_pruning.frontier.records import Record

SUM = Combination(
    temperatures_M=np.ones(2), weights_SM=np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
)


@pytest.fixture
def records(record: Any) -> list[Record]:
    """Member 0 is sure of image 0 and unsure of image 1, of which member 1 is sure."""
    sure, unsure = [0.9, 0.1], [0.6, 0.4]
    return [
        record([sure, unsure], [0, 1], macs=100, channels_NL=np.array([[4, 8], [4, 2]])),
        record([sure, [0.2, 0.8]], [0, 1], macs=300, channels_NL=np.array([[16], [32]])),
    ]


def test_a_threshold_cascade_by_hand(records: list[Record]) -> None:
    found = cascade_record(records, SUM, ThresholdChooser((0, 1), (0.7,)))
    # Image 1: 0.6 x 0.2 against 0.4 x 0.8.
    assert found.predictions_N.tolist() == [0, 1]
    assert found.executed_macs_N.tolist() == [100, 400]
    assert found.channels_NL.tolist() == [[4, 8, 0], [4, 2, 32]]
    np.testing.assert_allclose(np.exp(-found.losses_N), [0.9, 0.32 / 0.44], rtol=1e-5)
    assert found.answers == records[0].answers
    assert found.split == "policy"


def test_decisions_are_paid_for(records: list[Record]) -> None:
    table = SUM.table(align(records), 400.0)
    chooser = fit_regression(table, 0.0, folds=2)
    paid = cascade_record(records, SUM, chooser)
    members = cascade_record(records, SUM, ThresholdChooser((0, 1), (1.0,)))
    # Two decisions each: none is left to take when both members have run.
    assert (paid.executed_macs_N - members.executed_macs_N).tolist() == [
        2 * chooser.macs_per_image
    ] * 2


def test_given_sets_cost_no_decision(records: list[Record]) -> None:
    found = record_of_sets(records, SUM, np.array([2, 0]))
    assert found.executed_macs_N.tolist() == [300, 0]
    assert found.channels_NL.tolist() == [[0, 0, 16], [0, 0, 0]]
    np.testing.assert_allclose(np.exp(found.log_probabilities_NA[1]), 0.5, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_executor_does_what_the_record_says(records: list[Record], batch: int) -> None:
    chooser = ThresholdChooser((0, 1), (0.7,))

    def member(number: int) -> CascadeMember:
        record = records[number]

        def run(images_RCHW: Tensor) -> MemberAnswer:
            rows = images_RCHW.flatten().long().numpy()
            logits_RK = np.zeros((len(rows), 2), np.float32)
            np.put_along_axis(
                logits_RK, record.answer_classes_NA[rows], record.log_probabilities_NA[rows], 1
            )
            return MemberAnswer(
                torch.from_numpy(logits_RK),
                record.executed_macs_N[rows],
                record.channels_NL[rows].astype(np.int64),
            )

        return CascadeMember(run=run, sites=record.num_sites)

    run = CascadeExecutor([member(0), member(1)], SUM, chooser, num_classes=2)
    images_NCHW = torch.arange(2.0).reshape(2, 1, 1, 1)
    found = [run(part) for part in torch.split(images_NCHW, batch)]
    expected = cascade_record(records, SUM, chooser)
    for name, wanted in (
        ("channels_BL", expected.channels_NL),
        ("total_macs_B", expected.executed_macs_N),
    ):
        seen = torch.cat([getattr(each, name) for each in found])
        assert seen.tolist() == wanted.tolist()
    logits_NK = torch.cat([each.logits_BK for each in found])
    assert logits_NK.argmax(1).tolist() == expected.predictions_N.tolist()


def test_what_is_left_of_a_combination_combines_as_before() -> None:
    weights_SM = np.array([[(bits >> m & 1) * (bits + m) for m in range(3)] for bits in range(8)])
    made = Combination(temperatures_M=np.array([1.0, 2, 3]), weights_SM=weights_SM.astype(float))
    left = made.of([0, 2])
    assert left.temperatures_M.tolist() == [1, 3]
    # Sets {}, {0}, {2}, {0, 2} were numbers 0, 1, 4 and 5.
    assert left.weights_SM.tolist() == [[0, 0], [1, 0], [0, 6], [5, 7]]
