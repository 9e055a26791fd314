"""What decisions vary with, on records whose pattern is known."""

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dynamics import (
    decisions_of,
    difficulty,
    information,
    upper_bound_of,
)
from runtime_pruning.frontier.records import Record

CLASSES = ("cat", "dog")


def record(channels_NL: np.ndarray, labels_N: np.ndarray, losses_N: np.ndarray) -> Record:  # type: ignore[type-arg]
    """A record whose MACs are a hundred per channel, and whose predictions are all 0."""
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(len(labels_N)) + 7,
        labels_N=labels_N,
        predictions_N=np.zeros(len(labels_N), dtype=np.int64),
        losses_N=losses_N,
        channels_NL=channels_NL,
        executed_macs_N=100 * channels_NL.sum(axis=1),
    )


@pytest.fixture(scope="module")
def by_class() -> Record:
    """Dogs get 8 channels at the first site and cats 4; the second site always has 16."""
    labels_N = np.arange(100) % 2
    channels_NL = np.stack([4 + 4 * labels_N, np.full(100, 16)], axis=1)
    return record(channels_NL, labels_N, np.arange(100.0))


def test_figures_by_hand(by_class: Record) -> None:
    decisions = decisions_of(by_class, [(4, 8), (8, 16)], CLASSES, None)
    assert [site.shares for site in decisions.sites] == [(0.5, 0.5), (0.0, 1.0)]
    assert decisions.sites[0].class_information == pytest.approx(1.0, abs=0.03)
    assert decisions.sites[1].class_information == pytest.approx(0.0)
    cat, dog = decisions.by_class
    assert (cat.name, cat.images, cat.accuracy, cat.macs_per_image) == ("cat", 50, 1.0, 2000.0)
    assert (dog.name, dog.images, dog.accuracy, dog.macs_per_image) == ("dog", 50, 0.0, 2400.0)
    assert decisions.by_difficulty == ()
    assert (decisions.distinct_plans, decisions.commonest_plan_share) == (2, 0.5)
    assert decisions.plan_entropy == pytest.approx(1.0)
    assert decisions.cost_quantiles["0"] == 2000.0
    assert decisions.cost_quantiles["1"] == 2400.0
    assert set(decisions.information) == {"plan_class", "cost_class"}
    assert decisions.information["plan_class"] == pytest.approx(1.0, abs=0.03)
    assert decisions.information["cost_class"] == pytest.approx(1.0, abs=0.03)


def test_difficulty_is_the_decile_of_the_dense_loss(by_class: Record) -> None:
    dense = record(np.full((100, 2), 16), by_class.labels_N, np.arange(100.0)[::-1])
    deciles_N = difficulty(by_class, dense)
    assert deciles_N.tolist() == np.repeat(np.arange(10)[::-1], 10).tolist()
    decisions = decisions_of(by_class, [(4, 8), (8, 16)], CLASSES, dense)
    assert [piece.images for piece in decisions.by_difficulty] == [10] * 10
    assert decisions.information["plan_difficulty"] == pytest.approx(0.0, abs=0.1)
    other = record(np.full((50, 2), 16), by_class.labels_N[:50], np.zeros(50))
    with pytest.raises(DataError, match="same images"):
        difficulty(by_class, other)


def test_spending_on_hard_images_shows() -> None:
    hard_N = np.arange(1000) >= 500
    channels_NL = np.stack([4 + 4 * hard_N.astype(np.int64)], axis=1)
    labels_N = np.arange(1000) % 2
    dense = record(np.full((1000, 1), 8), labels_N, np.arange(1000.0))
    decisions = decisions_of(
        record(channels_NL, labels_N, np.zeros(1000)), [(4, 8)], CLASSES, dense
    )
    # Half of the deciles are hard: one bit.
    assert decisions.information["cost_difficulty"] == pytest.approx(1.0, abs=0.02)
    assert decisions.information["cost_class"] == pytest.approx(0.0, abs=0.02)
    costs = [piece.macs_per_image for piece in decisions.by_difficulty]
    assert costs == [400.0] * 5 + [800.0] * 5


def test_chance_tells_nothing_however_many_plans_there_are() -> None:
    rng = np.random.default_rng(0)
    plans_N, labels_N = rng.integers(150, size=300), rng.integers(10, size=300)
    assert abs(information(plans_N, labels_N)) < 0.1
    assert information(np.arange(300), labels_N) == pytest.approx(0.0)


def test_an_oracle_is_held_against_the_policy_on_the_same_images(by_class: Record) -> None:
    labels_N = np.array([0, 1])
    oracle = Record.from_arrays(
        split="validation",
        image_ids_N=np.array([8, 9]),
        labels_N=labels_N[::-1],
        predictions_N=labels_N[::-1],
        losses_N=np.zeros(2),
        channels_NL=np.full((2, 2), 4),
        executed_macs_N=np.array([800, 800]),
    )
    bound = upper_bound_of(by_class, oracle)
    assert (bound.images, bound.accuracy, bound.macs_per_image) == (2, 1.0, 800.0)
    # Image 8 is a dog, which is never recognised, image 9 a cat.
    assert (bound.policy_accuracy, bound.policy_macs_per_image) == (0.5, 2200.0)
    stranger = record(np.full((1, 2), 4), np.array([0]), np.zeros(1))
    with pytest.raises(DataError, match="among those"):
        upper_bound_of(oracle, stranger)
