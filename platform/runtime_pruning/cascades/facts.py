"""The record of a cascade, from its members' records: no network runs.

Dimensions: N images, M members, K classes, A classes whose log-probabilities are kept, L sites.
"""

from collections.abc import Sequence

import numpy as np

from pruning_envs.cascade_table import members_of
from runtime_pruning.cascades.answers import Answers, align
from runtime_pruning.cascades.choosing import Chooser, Ints, run
from runtime_pruning.cascades.combining import Combination
from runtime_pruning.frontier.records import AnswerKind, Record, kept_classes


def cascade_record(records: Sequence[Record], made: Combination, chooser: Chooser) -> Record:
    """Return what a cascade does to the images that its members have answered.

    Its channels are those of all sites of all members, in the members' order, 0 where a member did
    not run; its executed MACs are those of the members that ran, and of the decisions.

    Args:
        records: of the members, in the combination's order, all of the same images.
        made: how answers are combined.
        chooser: who decides.

    Raises:
        DataError: records that do not fit together, see `align`.
    """
    answers = align(records)
    sets_N, decisions_N = run(made.table(answers, 1.0), chooser)
    return record_of_sets(
        records, made, sets_N, spent_N=decisions_N * chooser.macs_per_image, answers=answers
    )


def record_of_sets(
    records: Sequence[Record],
    made: Combination,
    sets_N: Ints,
    *,
    spent_N: Ints | None = None,
    answers: Answers | None = None,
) -> Record:
    """Return the record of given sets of members, whoever chose them.

    Args:
        records: of the members.
        made: how answers are combined.
        sets_N: members that run on each image, member m as bit m.
        spent_N: MACs of the decisions; None for none.
        answers: those of the records, where they are at hand.
    """
    answers = align(records) if answers is None else answers
    rows_N, ran_NM = np.arange(len(sets_N)), members_of(sets_N, answers.num_members)
    log_NK = made.table(answers, 1.0).combined(rows_N, sets_N)
    classes_NA = np.argsort(-log_NK, axis=1, kind="stable")[:, : kept_classes(log_NK.shape[1])]
    channels = [
        np.where(ran_NM[:, [number]], record.channels_NL, 0)
        for number, record in enumerate(records)
    ]
    return Record.from_arrays(
        split=answers.split,
        image_ids_N=answers.image_ids_N,
        labels_N=answers.labels_N,
        predictions_N=classes_NA[:, 0],
        losses_N=-log_NK[rows_N, answers.labels_N],
        channels_NL=np.concatenate(channels, axis=1),
        executed_macs_N=(answers.macs_NM * ran_NM).sum(axis=1)
        + (0 if spent_N is None else spent_N),
        sources_N=_sources(records[0]),
        answers=AnswerKind(num_classes=log_NK.shape[1], content=answers.content),
        log_probabilities_NA=np.take_along_axis(log_NK, classes_NA, axis=1),
        answer_classes_NA=classes_NA,
    )


def _sources(record: Record) -> Ints | None:
    """Return ``sources_N``, or None where each image is a source of its own."""
    sources_N = record.sources_N
    return None if np.array_equal(sources_N, record.image_ids_N) else sources_N
