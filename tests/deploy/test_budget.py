"""The dial: budgets become positions, monotone, and images are dealt by their pixels."""

from typing import Any

import numpy as np
import pytest
import torch

from runtime_pruning.deploy.budget import Budget, Dial, draw
from runtime_pruning.deploy.card import Stop
from runtime_pruning.errors import ConfigError

DEVICE = "a-cpu"


def stop(accuracy: float, macs: float, ms: float, penalty: float | None = None) -> Stop:
    timing: dict[str, Any] = {
        "device": DEVICE,
        "fingerprint": {},
        "batch": 1,
        "images": 8,
        "mode": "image",
        "kernels": "k",
        "verdict": "faster",
        "macs_speedup": 2.0,
        "latency_ms": {"p50": ms, "p95": 2 * ms},
    }
    return Stop(
        folder=".",
        point_id="p",
        split="test",
        images=100,
        accuracy=(0.0, accuracy, 1.0),
        macs_per_image=(macs, macs, macs),
        macs_quantiles={},
        penalty=penalty,
        timings=(timing,),
    )


# The third stop is dearer than the second and no better: it is not on the dial.
STOPS = (stop(0.5, 100, 2, 3), stop(0.7, 200, 4, 1), stop(0.6, 250, 5), stop(0.8, 400, 3, 0))
DIAL = Dial(STOPS, DEVICE)


@pytest.mark.parametrize(
    ("budget", "position"),
    [
        ("macs=100", 0.0),
        ("macs=150", 0.5),
        ("macs=200", 1.0),
        ("macs=300", 1.5),
        ("macs=400", 2.0),
        ("macs=1e12", 2.0),  # more than it can use
        ("ms=2", 0.0),
        ("ms=3", 0.5),
        ("ms=4", 2.0),  # the last stop, which was timed below the second, counts as the second
        ("penalty=3", 0.0),
        ("penalty=1", 1.0),
        ("penalty=0", 2.0),
    ],
)
def test_a_budget_becomes_a_position(budget: str, position: float) -> None:
    assert DIAL.places == [0, 1, 3]
    assert DIAL.position(Budget.parse(budget)) == pytest.approx(position)


@pytest.mark.parametrize(
    ("kind", "low", "high", "sign"),
    [("macs", 100, 500, 1), ("ms", 2, 9, 1), ("penalty", 0, 3, -1)],
)
def test_positions_are_monotone_and_within_the_budget(
    kind: Any, low: float, high: float, sign: int
) -> None:
    values = np.linspace(low, high, 101)
    positions = [DIAL.position(Budget(kind, value)) for value in values]
    assert (sign * np.diff(positions) >= 0).all()
    assert min(positions) == 0 and max(positions) == 2  # noqa: PT018
    if kind == "macs":
        spent = [DIAL.expected(DIAL.macs, position) for position in positions]
        assert (spent <= values + 1e-9).all()


def test_a_stop_that_no_penalty_was_told_has_none() -> None:
    with pytest.raises(ConfigError, match="were told no penalties"):
        Dial((stop(0.5, 100, 2),), DEVICE).position(Budget("penalty", 1))
    with pytest.raises(ConfigError, match="needs times of every stop on this device"):
        Dial(STOPS, "another").position(Budget("ms", 3))


def test_images_are_dealt_in_the_shares_that_the_budget_allows() -> None:
    images_BCHW = torch.rand(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    dealt = {p: DIAL.deal(images_BCHW, p) for p in (0.0, 0.2, 0.8, 1.0, 1.5, 2.0)}
    assert {p: round(float((s == 1).float().mean()), 1) for p, s in dealt.items()} == {
        0.0: 0.0,
        0.2: 0.2,
        0.8: 0.8,
        1.0: 1.0,
        1.5: 0.5,
        2.0: 0.0,
    }
    assert set(dealt[1.5].tolist()) == {1, 3}
    ordered = torch.stack([dealt[p] for p in sorted(dealt)])
    assert (ordered.diff(dim=0) >= 0).all()  # an image only ever moves up
    back = torch.arange(3999, -1, -1)
    assert torch.equal(DIAL.deal(images_BCHW[back], 0.8), dealt[0.8][back])
    with pytest.raises(ConfigError, match="0 <= position <= 2"):
        DIAL.deal(images_BCHW, 2.5)


def test_draws_are_even() -> None:
    images_BCHW = torch.rand(2000, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    draws = sorted(draw(image) for image in images_BCHW)
    # Kolmogorov's bound at 0.1 % for 2,000 draws: 1.95 / sqrt(2000) = 0.044.
    assert np.abs(np.array(draws) - np.linspace(0, 1, 2000)).max() < 0.044
