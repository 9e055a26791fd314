"""What an episode starts from: shards, penalties, passes over the images."""

from typing import Any

import numpy as np
import pytest

from pruning_envs.sampling import ImageQueue, PenaltyRange, Shard

IMAGES_NCHW = np.zeros((5, 1, 1, 1), np.uint8)
LABELS_N = np.arange(5)


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_part_that_is_none_is_refused(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="`0 <= index < count` must hold for a shard"):
        Shard(index, count)


def test_a_penalty_is_a_number_a_pair_or_a_range() -> None:
    rng = np.random.default_rng(0)
    assert PenaltyRange.of(0.5) == PenaltyRange.of([0.5, 0.5]) == PenaltyRange(0.5, 0.5)
    assert PenaltyRange.of(0.5).draw(3, rng).tolist() == [0.5] * 3
    wide = PenaltyRange.of((0.01, 100))
    drawn_B = wide.draw(4000, rng)
    assert drawn_B.dtype == np.float32
    assert drawn_B.min() >= 0.01
    assert drawn_B.max() <= 100
    assert abs((drawn_B < 1).mean() - 0.5) < 0.04  # log-uniform: half below the middle decade


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (-1.0, "`0 <= penalty < inf`"),
        (float("nan"), "`0 <= penalty < inf`"),
        ((2.0, 1.0), "`0 <= low <= high < inf`"),
        ((0.0, 1.0), "needs `low > 0`"),
    ],
)
def test_a_penalty_that_cannot_be_drawn_is_refused(penalty: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PenaltyRange.of(penalty)


def test_a_queue_hands_out_each_image_once_a_pass() -> None:
    rng = np.random.default_rng(0)
    queue = ImageQueue(IMAGES_NCHW, LABELS_N)
    taken = np.concatenate([queue.take(count, rng) for count in (3, 4, 3)])
    assert sorted(taken[:5]) == sorted(taken[5:]) == [0, 1, 2, 3, 4]
    ordered = ImageQueue(IMAGES_NCHW, LABELS_N, shuffle=False, shard=Shard(1, 2))
    assert ordered.take(5, rng).tolist() == [1, 3, 1, 3, 1]
    ordered.restart()
    assert ordered.take(1, rng).tolist() == [1]


@pytest.mark.parametrize(
    ("images_NCHW", "labels_N", "shard", "message"),
    [
        (IMAGES_NCHW.astype(float), LABELS_N, Shard(), "must be uint8 of shape"),
        (IMAGES_NCHW[0], LABELS_N, Shard(), "must be uint8 of shape"),
        (IMAGES_NCHW, LABELS_N[:4], Shard(), "Each image needs one label"),
        (IMAGES_NCHW, LABELS_N, Shard(6, 7), "of 5 images is empty"),
    ],
)
def test_what_is_no_set_of_images_is_refused(
    images_NCHW: Any, labels_N: Any, shard: Shard, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ImageQueue(images_NCHW, labels_N, shard=shard)
