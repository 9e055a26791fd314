"""What members answered to the same images, side by side.

Dimensions: N images, M members, K classes, A classes that a record keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import Judged, Record


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Members' answers to the images of one split.

    Attributes:
        split: the images'.
        content: hash of the content of the dataset.
        image_ids_N: ascending.
        labels_N: true classes.
        log_probabilities_NMK: nats, float32, not calibrated.
        macs_NM: executed by each member on each image, its policy's own included.
    """

    split: Judged
    content: str
    image_ids_N: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    log_probabilities_NMK: npt.NDArray[np.float32]
    macs_NM: npt.NDArray[np.int64]

    @property
    def num_members(self) -> int:
        """M."""
        return int(self.macs_NM.shape[1])


def align(records: Sequence[Record]) -> Answers:
    """Return members' answers from their records, in the members' order.

    Raises:
        DataError: no record, one without answers, or records of different data, splits or images.
    """
    if not records:
        raise DataError("A cascade needs at least one member, but got no record.")
    first = records[0]
    for number, record in enumerate(records):
        _check_alike(first, record, number)
    assert first.answers is not None
    answers_NMK = np.stack([all_classes(record) for record in records], axis=1)
    if np.isnan(answers_NMK).any():
        raise DataError("A member's answers must be numbers, but one has diverged.")
    return Answers(
        split=first.split,
        content=first.answers.content,
        image_ids_N=first.image_ids_N,
        labels_N=first.labels_N,
        log_probabilities_NMK=answers_NMK,
        macs_NM=np.stack([record.executed_macs_N for record in records], axis=1),
    )


def _check_alike(first: Record, record: Record, number: int) -> None:
    """Raise unless a record is of the same images as the first."""
    what = f"Member {number}'s record"
    if record.answers is None:
        raise DataError(f"{what} holds no answers: it is of a version that did not keep them.")
    if record.answers != first.answers:
        raise DataError(
            f"{what} must be of the same dataset as member 0's, {first.answers}, but is of "
            f"{record.answers}."
        )
    if record.split != first.split:
        raise DataError(f"{what} must be of the {first.split} split, but is of {record.split}.")
    if not np.array_equal(record.image_ids_N, first.image_ids_N):
        raise DataError(
            f"{what} must be of the same {len(first)} images as member 0's, but is of "
            f"{len(record)}, {len(np.intersect1d(record.image_ids_N, first.image_ids_N))} of them "
            "the same. Measure the members with one `held_out_limit`."
        )


def all_classes(record: Record) -> npt.NDArray[np.float32]:
    """Return ``log_probabilities_NK``; what is not kept of a probability is shared out evenly."""
    assert record.answers is not None
    log_NA, class_NA = record.log_probabilities_NA, record.answer_classes_NA
    classes, kept = record.answers.num_classes, record.answers.kept
    rest_N = np.clip(1 - np.exp(log_NA.astype(np.float64)).sum(axis=1), 1e-9, 1)
    share_N = np.log(rest_N / max(classes - kept, 1))
    log_NK = np.repeat(share_N[:, None], classes, axis=1).astype(np.float32)
    np.put_along_axis(log_NK, class_NA.astype(np.int64), log_NA, axis=1)
    return log_NK
