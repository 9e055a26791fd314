"""Fronts and volumes worked out by hand, and held against Optuna's on random points."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.dominance import Reference, front_mask, hypervolume, pareto_mask


def test_front_by_hand() -> None:
    #            front   beaten by 0   front   equal to 0   beaten by 2
    losses = [[1.0, 3.0], [2.0, 3.0], [2.0, 1.0], [1.0, 3.0], [2.0, 2.0]]
    assert pareto_mask(losses).tolist() == [True, False, True, True, False]


def test_what_is_not_finite_neither_leads_nor_beats() -> None:
    losses = [[np.nan, 0.0], [-np.inf, 0.0], [1.0, 1.0]]
    assert pareto_mask(losses).tolist() == [False, False, True]


def test_no_points_have_no_front() -> None:
    assert pareto_mask(np.empty((0, 2))).tolist() == []


@pytest.mark.parametrize("objectives", [2, 3])
def test_front_equals_the_definition(objectives: int) -> None:
    losses_PK = np.random.default_rng(0).integers(0, 6, (80, objectives)).astype(float)
    expected = [not any((b <= a).all() and (b < a).any() for b in losses_PK) for a in losses_PK]
    assert pareto_mask(losses_PK).tolist() == expected
    assert 0 < sum(expected) < 80


def test_area_by_hand() -> None:
    # Corner (4, 4). (1, 3) covers 3 x 1, (2, 1) covers 2 x 3, they share 2 x 1: 3 + 6 - 2 = 7.
    assert hypervolume([[1.0, 3.0], [2.0, 1.0]], [4.0, 4.0]) == 7.0
    # Neither a beaten point, nor one beyond the corner, nor a NaN adds anything.
    more = [[1.0, 3.0], [2.0, 1.0], [3.0, 3.0], [5.0, 0.0], [np.nan, 0.0]]
    assert hypervolume(more, [4.0, 4.0]) == 7.0
    assert hypervolume(np.empty((0, 2)), [4.0, 4.0]) == 0.0


def test_volume_by_hand() -> None:
    # Corner (2, 2, 2). (1, 1, 0) covers 1 x 1 x 2, (0, 0, 1) covers 2 x 2 x 1, shared 1: 5.
    assert hypervolume([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [2.0, 2.0, 2.0]) == 5.0


@pytest.mark.parametrize("objectives", [2, 3])
def test_volume_equals_optunas(objectives: int) -> None:
    losses_PK = np.random.default_rng(1).random((100, objectives))
    corner = np.full(objectives, 0.9)
    inside = losses_PK[(losses_PK < corner).all(axis=1)]
    expected = compute_hypervolume(inside, corner)
    assert hypervolume(losses_PK, corner) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shape", "corner"), [((3, 4), 4), ((3, 1), 1), ((3, 2), 3)])
def test_other_numbers_of_objectives_are_refused(shape: tuple[int, int], corner: int) -> None:
    with pytest.raises(ConfigError, match="2 or 3 objectives"):
        hypervolume(np.zeros(shape), np.ones(corner))


def test_the_declared_corner() -> None:
    assert Reference().losses_K.tolist() == [1.0, 1.1]


def test_who_has_seen_the_images_beats_nobody(synthetic: ModuleType) -> None:
    honest, seen = synthetic.make_point(0.5)[0], synthetic.make_point(0.4)[0]
    seen = replace(seen, saw_held_out=True, figures=replace(seen.figures, accuracy=0.99))
    tested = replace(seen, split="test")
    assert (honest.chooses, seen.chooses, tested.chooses) == (True, False, True)
    assert front_mask([honest, seen]).tolist() == [True, False]
    assert front_mask([seen]).tolist() == [True]  # nothing to choose from
    assert front_mask([honest, tested]).tolist() == [False, True]
