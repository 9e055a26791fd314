"""A threshold on what fixed widths answered: chosen on one split, judged on the other, by hand."""

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import AnswerKind, Record
from runtime_pruning.methods.threshold_control import threshold_records


def answers(split: str, right: list[float], macs: int, *, first: int) -> Record:
    """Of two classes, the label 1: how likely each image's answer holds it."""
    right_N = np.array(right)
    log_NA = np.log(np.stack([1 - right_N, right_N], axis=1))
    count = len(right)
    return Record.from_arrays(
        split=split,  # type: ignore[arg-type]
        image_ids_N=np.arange(first, first + count),
        labels_N=np.ones(count, dtype=np.int64),
        predictions_N=(right_N > 0.5).astype(np.int64),
        losses_N=-log_NA[:, 1],
        channels_NL=np.full((count, 2), macs // 10),
        executed_macs_N=np.full(count, macs),
        answers=AnswerKind(num_classes=2, content="c0ffee"),
        log_probabilities_NA=log_NA,
        answer_classes_NA=np.tile([0, 1], (count, 1)),
        sources_N=np.arange(count) // 2,
    )


# The cheap width is sure of three in four, and wrong, unsure, about the fourth.
CHEAP, DEAR = [0.9, 0.9, 0.9, 0.4], [0.95, 0.95, 0.9, 0.9]


def both(split: str, images: int, first: int) -> list[Record]:
    return [
        answers(split, CHEAP * (images // 4), 10, first=first),
        answers(split, DEAR * (images // 4), 30, first=first),
    ]


def test_the_unsure_go_on() -> None:
    learned, held_out = both("policy", 40, 0), both("validation", 16, 100)
    records = threshold_records(learned, held_out, budget=17.5)
    best = max(records, key=lambda each: (each.correct_N.mean(), -each.executed_macs_N.mean()))
    # A quarter of the images run both: 10 + 30 / 4.
    assert best.correct_N.all()
    assert best.executed_macs_N.tolist() == [10, 10, 10, 40] * 4
    assert best.channels_NL.tolist() == [*[[1, 1, 0, 0]] * 3, [1, 1, 3, 3]] * 4
    assert best.split == "validation"
    assert best.sources_N.tolist() == held_out[0].sources_N.tolist()


def test_what_is_nearest_to_the_budget_is_taken() -> None:
    learned, held_out = both("policy", 40, 0), both("validation", 16, 100)
    cheapest = threshold_records(learned, held_out, budget=1.0)
    assert [each.executed_macs_N.mean() for each in cheapest] == [10, 17.5]
    (alone,) = threshold_records(learned[:1], held_out[:1], budget=17.5)
    assert alone.executed_macs_N.tolist() == [10] * 16


def test_records_that_do_not_belong_together_are_refused() -> None:
    learned, held_out = both("policy", 8, 0), both("validation", 8, 100)
    with pytest.raises(DataError, match="record of both splits, but got 1 and 2"):
        threshold_records(learned[:1], held_out, budget=1.0)
    with pytest.raises(DataError, match="but got 0 and 0"):
        threshold_records([], [], budget=1.0)
