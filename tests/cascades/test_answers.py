"""Answers line up by image, and those of other images or data are refused by name."""

from typing import Any

import numpy as np
import pytest

from runtime_pruning.cascades import align
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import AnswerKind

FIRST, SECOND = [[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]]
LABELS = [0, 1]


def test_members_stand_side_by_side(record: Any) -> None:
    ids = np.array([9, 4])  # rows are put in order of image
    both = [
        record(FIRST, LABELS, 100, image_ids_N=ids),
        record(SECOND, LABELS, 300, image_ids_N=ids),
    ]
    answers = align(both)
    assert (answers.split, answers.content, answers.num_members) == ("policy", "c0ffee", 2)
    assert (answers.image_ids_N.tolist(), answers.labels_N.tolist()) == ([4, 9], [1, 0])
    np.testing.assert_allclose(
        np.exp(answers.log_probabilities_NMK),
        [[[0.2, 0.8], [0.7, 0.3]], [[0.9, 0.1], [0.6, 0.4]]],
        rtol=1e-6,
    )
    assert answers.macs_NM.tolist() == [[100, 300]] * 2


def test_what_is_not_kept_of_a_probability_is_shared_out(record: Any) -> None:
    # 20 of 102 classes are kept, with 0.9 together: the other 82 share 0.1.
    kept = np.array([[0.52, *[0.02] * 19]])
    few = record(
        kept,
        [5],
        predictions_N=[7],
        answers=AnswerKind(num_classes=102, content="c0ffee"),
        answer_classes_NA=np.array([[7, *range(80, 99)]]),
    )
    log_K = align([few]).log_probabilities_NMK[0, 0]
    assert np.exp(log_K[[7, 80, 5]]).tolist() == pytest.approx([0.52, 0.02, 0.1 / 82], rel=1e-4)
    assert np.exp(log_K.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": AnswerKind(num_classes=2, content="bad")}, "same dataset as member 0"),
        ({"split": "test"}, "policy split, but is of test"),
        ({"image_ids_N": np.array([0, 5])}, "1 of them the same"),
        ({"answers": None}, "holds no answers"),
        ({"log_probabilities_NA": np.full((2, 2), np.nan)}, "has diverged"),
    ],
)
def test_others_are_refused(record: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        align([record(FIRST, LABELS), record(SECOND, LABELS, **changes)])
    with pytest.raises(DataError, match="at least one member"):
        align([])
