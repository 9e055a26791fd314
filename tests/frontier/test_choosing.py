"""The best point under constraints, by hand."""

import math
import random
from typing import Any

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.choosing import Candidate, Constraints, choose


def point(name: str, accuracy: float, share: float, **more: Any) -> Candidate:
    facts = {"method": "rnp", "backbone": "resnet20-cifar", **more}
    return Candidate(point_id=name, accuracy=accuracy, macs_fraction=share, **facts)


POOL = [
    point("a", 0.80, 0.2, class_loss=0.10, latency_ms={"cpu.1.p50": 1.0, "cpu.1.p95": 1.5}),
    point("b", 0.86, 0.4, class_loss=0.02, latency_ms={"cpu.1.p50": 2.0, "cpu.1.p95": 4.6}),
    point("c", 0.90, 0.6, class_loss=0.04, method="cascade", latency_ms={"cpu.1.p50": 1.8}),
    point("d", 0.92, 1.0, class_loss=0.0, method="dense"),
]


@pytest.mark.parametrize(
    ("asked", "best"),
    [
        ({}, "a"),  # nothing asked for: the cheapest
        ({"prefer": "accuracy"}, "d"),
        ({"min_accuracy": 0.85}, "b"),  # the cheapest that is good enough
        ({"min_accuracy": 0.86}, "b"),  # a limit that is met exactly is kept
        ({"max_macs_fraction": 0.6}, "c"),  # the most accurate that is cheap enough
        ({"max_macs_fraction": 0.6, "method": "rnp"}, "b"),
        ({"max_class_loss": 0.03}, "b"),
        ({"max_class_loss": 0.0}, "d"),
        ({"device": "cpu"}, "a"),  # the quickest there
        ({"device": "cpu", "min_accuracy": 0.82}, "c"),  # by time, not by MACs
        ({"device": "cpu", "max_p95_ms": 4.0}, "a"),  # c was not timed that well
        ({"device": "cpu", "max_p50_ms": 2.0}, "c"),
    ],
)
def test_the_best_by_hand(asked: dict[str, Any], best: str) -> None:
    choice = choose(POOL, Constraints(**asked))
    assert choice.best is not None
    assert choice.best.point_id == best
    assert choice.nearest_miss is None


def test_runners_up_say_why_they_failed() -> None:
    choice = choose(POOL, Constraints(max_macs_fraction=0.5, max_class_loss=0.05))
    assert choice.best is POOL[1]
    assert choice.feasible == 1
    near, far = choice.runners_up
    assert near.candidate is POOL[2]  # more accurate, and 20 % too dear; d is 100 % too dear
    assert [(f.constraint, f.value, f.limit) for f in near.failures] == [
        ("max_macs_fraction", 0.6, 0.5)
    ]
    assert near.miss == (pytest.approx(0.2), pytest.approx(0.2))
    assert far.candidate is POOL[3]
    # A feasible one comes after those that would be better.
    wide = choose(POOL, Constraints(max_macs_fraction=0.7))
    assert [each.candidate.point_id for each in wide.runners_up] == ["d", "b", "a"]
    assert [bool(each.failures) for each in wide.runners_up] == [True, False, False]


def test_the_nearest_miss_by_hand() -> None:
    # a misses accuracy by 0.1/0.9, b by 0.04/0.9 and MACs by 1/3: its largest miss is the larger.
    choice = choose(POOL[:2], Constraints(min_accuracy=0.9, max_macs_fraction=0.3))
    assert choice.best is None
    assert choice.nearest_miss is not None
    assert choice.nearest_miss.candidate is POOL[0]
    assert choice.nearest_miss.miss[0] == pytest.approx(0.1 / 0.9)
    assert [each.candidate.point_id for each in choice.runners_up] == ["b"]


def test_what_was_not_measured_is_no_near_miss() -> None:
    choice = choose(POOL, Constraints(device="gpu", max_p95_ms=1.0))
    assert (choice.best, choice.nearest_miss, choice.runners_up) == (None, None, ())
    choice = choose(POOL, Constraints(method="w-gates"))
    assert (choice.best, choice.nearest_miss) == (None, None)
    assert choose([], Constraints()).best is None


def test_equal_points_fall_to_the_smaller_id_in_any_order() -> None:
    pool = [point(name, 0.9, 0.5) for name in "cab"] + [point("0", 0.9, 0.6)]
    for seed in range(5):
        random.Random(seed).shuffle(pool)
        for asked in (Constraints(), Constraints(max_macs_fraction=0.9)):
            choice = choose(pool, asked)
            assert choice.best is not None
            assert choice.best.point_id == "a"
            behind = [each.candidate.point_id for each in choice.runners_up]
            assert behind == ["b", "c"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_accuracy": 91.0}, r"`0 <= min_accuracy <= 1` must hold, but got 91.0"),
        ({"max_class_loss": -0.1}, r"`0 <= max_class_loss <= 1` must hold"),
        ({"max_macs_fraction": 0.0}, r"`max_macs_fraction > 0` must hold"),
        ({"max_p95_ms": math.nan, "device": "cpu"}, r"`max_p95_ms > 0` must hold"),
        ({"max_p95_ms": 4.0}, "Milliseconds are of a device"),
        ({"batch": 0}, r"`batch >= 1` must hold"),
    ],
)
def test_bad_constraints_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Constraints(**asked)
