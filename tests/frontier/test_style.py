"""One colour and one mark for each method everywhere, apart from the others and from the page."""

from types import ModuleType

import numpy as np
import pytest

from runtime_pruning.frontier import style
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.proof import Advantage
from runtime_pruning.frontier.style import DARK_PANEL, LIGHT_PANEL, look
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.uncertainty import Evidence

METHODS = (
    *("cascade", "rnp", "constrained-rl", "w-gates", "manidp", "magnitude", "vanilla"),
    *("fixed-width",),
)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_methods_are_told_apart_by_colour_and_by_mark() -> None:
    looks = [look(method) for method in METHODS]
    assert len({each.colour for each in looks}) == len(METHODS)
    assert len({each.shape for each in looks}) == len({each.marker for each in looks})
    assert len({each.shape for each in looks}) == len(METHODS)


@pytest.mark.parametrize("method", [*METHODS, "a-third-partys", "another"])
@pytest.mark.parametrize("panel", [LIGHT_PANEL, DARK_PANEL])
def test_colours_are_seen_on_both_pages(method: str, panel: str) -> None:
    assert contrast(look(method).colour, panel) >= 3


def test_a_third_partys_method_looks_the_same_every_time() -> None:
    assert look("a-third-partys") == look("a-third-partys")


@pytest.fixture
def summary(synthetic: ModuleType) -> FrontierSummary:
    measured = synthetic.make_sweep()
    return summarise(
        [point for point, _ in measured],
        [Evidence.of(record) for _, record in measured],
        reference=Reference(),
        replicates=50,
    )


def test_the_fronts_line_rises_and_ends_at_the_dense_cost(summary: FrontierSummary) -> None:
    corners = style.steps(summary)
    assert (np.diff(corners.macs) >= 0).all()
    assert (np.diff(corners.accuracy) >= 0).all()
    assert corners.macs[-1] >= summary.points[0].dense_macs
    assert (corners.low <= corners.accuracy).all()
    assert (corners.accuracy <= corners.high).all()


def test_the_frame_holds_everything(summary: FrontierSummary) -> None:
    frame = style.frame(summary, dense_accuracy=0.99)
    assert frame.accuracy[0] < min(point.accuracy for point in summary.points)
    assert frame.accuracy[1] >= 0.99
    assert frame.macs[1] > max(point.executed_macs_per_image for point in summary.points)


def test_gains_are_points_of_accuracy() -> None:
    gain = Advantage(value=0.0123, low=-0.004, high=0.03, accuracy=0.9, macs_per_image=1.0)
    assert style.gain_text(gain) == "+1.23 [-0.40, +3.00]"
