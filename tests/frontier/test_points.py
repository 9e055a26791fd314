"""A point's figures, worked out by hand, and ids that depend on what a point is alone."""

from dataclasses import replace

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier import OperatingPoint, Provenance, Record, derive
from runtime_pruning.frontier.points import canonical_json, point_id, trial_key
from runtime_pruning.frontier.records import AnswerKind

PROVENANCE = Provenance(
    sweep_id="s1",
    config={"penalty": 0.1, "widths": (1, 2)},
    index=0,
    method="rnp",
    backbone="digits-cnn",
    dataset="digits",
    seed=3,
    groups=4,
    dense_macs=1000,
    penalty=0.1,
)


def record_of_four() -> Record:
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(4),
        labels_N=np.array([0, 1, 2, 3]),
        predictions_N=np.array([0, 1, 2, 0]),
        losses_N=np.array([0.0, 0.5, 0.5, 3.0]),
        channels_NL=np.full((4, 2), 8),
        executed_macs_N=np.array([100, 200, 300, 1000]),
    )


def test_figures_by_hand() -> None:
    point = derive(record_of_four(), PROVENANCE)
    assert point.accuracy == 0.75
    assert point.executed_macs_per_image == 400.0
    assert point.macs_per_image == 400.0
    assert point.macs_fraction == 0.4
    assert point.figures.loss == 1.0
    assert point.figures.images == 4
    # Half of the images cost at most 200; 90 % is reached only with the last.
    assert point.figures.executed_macs_p50 == 200.0
    assert point.figures.executed_macs_p90 == 1000.0
    assert point.figures.executed_macs_p99 == 1000.0


def test_a_claim_never_replaces_what_was_executed() -> None:
    point = derive(record_of_four(), PROVENANCE, analytic_macs_per_image=123.0)
    assert (point.macs_per_image, point.executed_macs_per_image) == (123.0, 400.0)
    assert point.macs_fraction == 0.4


def test_a_point_survives_storage() -> None:
    point = derive(record_of_four(), PROVENANCE, analytic_macs_per_image=0.1 + 0.2)
    back = OperatingPoint.from_json(point.to_json())
    assert back == point
    back.check_against(record_of_four())
    assert back.point_id == point.point_id
    assert back.config == {"penalty": 0.1, "widths": [1, 2]}


def test_a_point_and_a_record_of_different_splits_do_not_join() -> None:
    text = derive(record_of_four(), PROVENANCE).to_json().replace("validation", "test")
    with pytest.raises(DataError, match="test split has a record of validation"):
        OperatingPoint.from_json(text).check_against(record_of_four())


def test_figures_that_a_record_does_not_give_are_named() -> None:
    text = derive(record_of_four(), PROVENANCE).to_json()
    better = text.replace('"accuracy":0.75', '"accuracy":1.0')
    assert better != text
    with pytest.raises(DataError, match=r"accuracy=0\.75.* but got .*accuracy=1\.0"):
        OperatingPoint.from_json(better).check_against(record_of_four())


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"figures": 3}', '{"figures": {"images": 1}}'])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="No point of this version can be read"):
        OperatingPoint.from_json(text)


def test_ids_depend_on_content_alone() -> None:
    assert trial_key({"a": 1, "b": [2, 3]}) == trial_key({"b": (2, 3), "a": np.int64(1)})
    assert trial_key({"a": 1}) != trial_key({"a": 2})
    # Pinned: an id that changed between releases would log old points again.
    assert trial_key({"a": 1}) == "015abd7f5cc5"
    assert point_id("s1", "015abd7f5cc5", 0) == "46d14f4a960f5a85"
    first = derive(record_of_four(), PROVENANCE)
    assert first.point_id == replace(first, code_version="other", env_steps=9).point_id
    assert first.point_id != replace(first, index=1).point_id
    assert first.point_id != replace(first, sweep_id="s2").point_id
    assert first.point_id != replace(first, config={"penalty": 0.2}).point_id


@pytest.mark.parametrize("config", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_a_configuration_is_plain_json(config: dict[str, object]) -> None:
    with pytest.raises(DataError, match="plain JSON"):
        canonical_json(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": -1}, "`index >= 0` must hold, but got -1"),
        ({"groups": 0}, "`groups >= 1`"),
        ({"dense_macs": 0}, "`dense_macs >= 1`"),
        ({"sweep_id": "it's"}, "without quotes"),
        ({"sweep_id": ""}, "non-empty"),
    ],
)
def test_impossible_provenance_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(PROVENANCE, **changes)  # type: ignore[arg-type]


def answered(classes: int, likeliest_NA: list[list[int]], labels: list[int]) -> Record:
    """Of equally many classes kept, the likeliest first: each half as likely as the one before."""
    log_NA = np.log(0.5) * (1 + np.arange(classes)) * np.ones((len(labels), 1))
    log_NA[:, -1] = log_NA[:, -2]  # so that they sum to 1
    rest = [sorted(set(range(classes)) - set(first)) for first in likeliest_NA]
    ranks_NA = np.array(
        [[*first, *others] for first, others in zip(likeliest_NA, rest, strict=True)]
    )
    order_NA = np.argsort(ranks_NA, axis=1)
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(len(labels)),
        labels_N=np.array(labels),
        predictions_N=ranks_NA[:, 0],
        losses_N=np.zeros(len(labels)),
        channels_NL=np.full((len(labels), 1), 8),
        executed_macs_N=np.full(len(labels), 10),
        answers=AnswerKind(num_classes=classes, content="c0ffee"),
        log_probabilities_NA=np.take_along_axis(log_NA, order_NA, axis=1),
        answer_classes_NA=np.tile(np.arange(classes), (len(labels), 1)),
    )


def test_five_likeliest_count_where_classes_are_many() -> None:
    # The label is the likeliest, the fifth, the sixth, and none of those named.
    likeliest = [[7, 1, 2, 3, 4, 5]] * 4
    point = derive(answered(12, likeliest, [7, 4, 5, 11]), PROVENANCE)
    assert (point.accuracy, point.figures.top5) == (0.25, 0.5)
    assert derive(answered(10, likeliest, [7, 4, 5, 9]), PROVENANCE).figures.top5 is None
    # Points of earlier versions were stored without.
    record = answered(12, likeliest, [7, 4, 5, 11])
    replace(point, figures=replace(point.figures, top5=None)).check_against(record)
    with pytest.raises(DataError, match="must have the figures that its record gives"):
        replace(point, figures=replace(point.figures, top5=0.9)).check_against(record)
