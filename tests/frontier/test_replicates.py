"""Replicates are one point, their mean: a lucky seed is no claim."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.replicates import first_known, pool, pool_evidence
from runtime_pruning.frontier.uncertainty import Evidence, accuracy_interval, resample


def under(point: OperatingPoint, seed: int, accuracy: float) -> OperatingPoint:
    """The same point under another seed."""
    figures = replace(point.figures, accuracy=accuracy)
    return replace(point, seed=seed, config={**point.config, "seed": seed}, figures=figures)


@pytest.fixture
def point(synthetic: ModuleType) -> OperatingPoint:
    made: OperatingPoint = synthetic.make_point(0.5)[0]
    return made


def test_the_same_configuration_under_other_seeds_is_one_point(point: OperatingPoint) -> None:
    three = [under(point, seed, accuracy) for seed, accuracy in ((1, 0.8), (0, 0.6), (2, 0.7))]
    other = replace(three[0], index=1)
    mean, alone = pool([*three, other])
    assert mean.point.accuracy == pytest.approx(0.7)
    assert mean.point.seeds == (0, 1, 2)
    assert mean.ids == tuple(three[at].point_id for at in (1, 0, 2))
    assert mean.point.point_id == three[1].point_id
    assert mean.point.figures.images == point.figures.images
    assert (alone.point, alone.ids) == (other, (other.point_id,))


def test_what_is_known_of_any_is_known_of_all(point: OperatingPoint) -> None:
    two = [under(point, seed, 0.5) for seed in (0, 1)]
    pooled = pool(two)
    assert first_known(pooled, {two[1].point_id: "late"}) == {two[0].point_id: "late"}
    both = {each.point_id: str(each.seed) for each in two}
    assert first_known(pooled, both) == {two[0].point_id: "0"}


def evidence(correct: list[int]) -> Evidence:
    ids_N = np.arange(len(correct))
    return Evidence(ids_N, np.array(correct, bool), np.full(len(correct), 10), ids_N)


def test_intervals_are_over_images_and_seeds() -> None:
    alike = pool_evidence([evidence([1] * 70 + [0] * 30)] * 3)
    apart = pool_evidence([evidence([1] * share + [0] * (100 - share)) for share in (50, 70, 90)])
    assert apart.by_seed_S == pytest.approx((0.5, 0.7, 0.9))
    assert alike.correct_N.mean() == apart.correct_N.mean() == pytest.approx(0.7)
    (low_P, high_P), (near_P, far_P) = accuracy_interval([alike, apart])[0:2], ([0.0], [1.0])
    # Seeds that differ by 0.2 each: t(0.975, 2) * 0.2 / sqrt(3) = 4.30265 * 0.11547 = 0.49683.
    assert high_P[0] - low_P[0] < 0.2
    assert high_P[1] - low_P[1] > 2 * 0.49 - 0.25  # cut off at 1
    assert (low_P[1] >= near_P[0], high_P[1] <= far_P[0]) == (True, True)
    redrawn = resample([alike, apart], replicates=500, rng=np.random.default_rng(0)).accuracy_RP
    assert redrawn.std(axis=0)[1] > 1.5 * redrawn.std(axis=0)[0]


def test_one_seed_that_was_lucky_is_not_on_the_front(synthetic: ModuleType) -> None:
    rival, record = synthetic.make_point(0.45)
    lucky = under(replace(rival, figures=replace(rival.figures, macs_fraction=0.44)), 0, 0.99)
    unlucky = under(lucky, 1, 0.1)
    other = replace(rival, config={**rival.config, "of": "the rival"})
    board = Board(Reference())
    for each in (lucky, unlucky, other):
        board.add(each, Evidence.of(record))
    assert board.on_front()[other.point_id]
    # The mean is cheaper, so that it stays on the front, at its own accuracy, for both.
    assert board.on_front()[lucky.point_id] == board.on_front()[unlucky.point_id]
    dear = [
        replace(each, figures=replace(each.figures, macs_fraction=0.46))
        for each in (lucky, unlucky)
    ]
    board = Board(Reference())
    for each in (*dear, other):
        board.add(each, Evidence.of(record))
    assert board.on_front() == {
        dear[0].point_id: False,
        dear[1].point_id: False,
        other.point_id: True,
    }
