"""What page and picture share: each method's colour and mark, words, the shape of the front's line.

A method has one colour and one mark everywhere, whatever other methods stand beside it. All colours
have a contrast of at least 3 to 1 against the light and the dark page (WCAG 2.2, 1.4.11); the first
follow Okabe & Ito, "Color Universal Design", 2008: apart for every kind of colour vision.
"""

import zlib
from typing import NamedTuple

import numpy as np

from runtime_pruning.frontier.dominance import Doubles
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Advantage, Verdict
from runtime_pruning.frontier.summary import DENSE, FrontierSummary

INK = "#222222"
FAINT = "#6b6b6b"
FRONT = "#222222"
BAR = "#56B4E9"
YES = "#009E73"
NO = "#D55E00"
LIGHT_PANEL, DARK_PANEL = "#f5f6f8", "#1d2127"  # what the page's chart is drawn on


class Look(NamedTuple):
    """How a method's points are drawn.

    Attributes:
        colour: hexadecimal; the page draws `INK` in the ink of its theme.
        shape: the page's name.
        marker: matplotlib's name.
    """

    colour: str
    shape: str
    marker: str


_MARKERS = {
    "circle": "o",
    "triangle-up": "^",
    "diamond": "D",
    "triangle-down": "v",
    "pentagon": "p",
    "hexagon": "h",
    "plus": "P",
    "triangle-left": "<",
    "triangle-right": ">",
    "square": "s",
    "x": "X",
    "star": "*",
}
_KNOWN = {
    "cascade": ("#0072B2", "circle"),
    "rnp": ("#D55E00", "triangle-up"),
    "constrained-rl": ("#009A70", "diamond"),
    "w-gates": ("#B9619A", "triangle-down"),
    "manidp": ("#B07800", "pentagon"),
    "lpnet": ("#2E93CB", "hexagon"),
    "magnitude": ("#A0603C", "plus"),
    "vanilla": ("#7C6FD0", "triangle-left"),
    "fixed-width": ("#808080", "square"),
    "upper-bound": ("#808080", "x"),
    DENSE: (INK, "star"),
}
_COLOURS = ("#0072B2", "#D55E00", "#009A70", "#B9619A", "#B07800", "#2E93CB", "#A0603C", "#7C6FD0")
_SHAPES = ("triangle-right", "hexagon", "plus", "pentagon", "diamond", "triangle-left", "circle")


def look(method: str) -> Look:
    """Return how a method's points are drawn; of one that is not ours the name decides."""
    if method in _KNOWN:
        colour, shape = _KNOWN[method]
    else:
        code = zlib.crc32(method.encode())
        colour, shape = _COLOURS[code % 8], _SHAPES[code // 8 % 7]
    return Look(colour, shape, _MARKERS[shape])


def looks(summary: FrontierSummary) -> dict[str, Look]:
    """Return the look of each method that has points, in order of name, the dense network last."""
    methods = {point.method for point in summary.points}
    return {method: look(method) for method in sorted(methods, key=lambda m: (m == DENSE, m))}


# What is laid over the points of each verdict: words, matplotlib's marker.
VERDICTS: dict[Verdict, tuple[str, str]] = {
    "dynamic": ("decisions depend on the image", "o"),
    "not better than a threshold": ("no better than a threshold on confidence", "+"),
    "static": ("not shown to beat its controls: static", "x"),
}


def proved(summary: FrontierSummary) -> dict[Verdict, list[OperatingPoint]]:
    """Return the proved points by verdict, verdicts without points left out."""
    found: dict[Verdict, list[OperatingPoint]] = {}
    for verdict in VERDICTS:
        points = [p for p in summary.points if _verdict(summary, p) == verdict]
        if points:
            found[verdict] = points
    return found


def _verdict(summary: FrontierSummary, point: OperatingPoint) -> Verdict | None:
    proof = summary.proof_of(point)
    return None if proof is None else proof.verdict


class Words(NamedTuple):
    """Title and subtitle."""

    title: str
    subtitle: str


def words(summary: FrontierSummary) -> Words:
    """Return what was measured, on what, and how sure it is."""
    first = summary.points[0]
    seeds = ", ".join(str(seed) for seed in sorted({p.seed for p in summary.points}))
    plural = "s" if "," in seeds else ""
    title = f"{first.backbone} on {first.dataset}: accuracy against executed MACs"
    subtitle = (
        f"{first.split} split, {first.figures.images:,} images, seed{plural} {seeds}; "
        f"filled: on the front; band: {summary.level:.0%} bootstrap over images"
    )
    return Words(title, subtitle)


class Steps(NamedTuple):
    """The front as corners of a staircase: what a budget buys, with its band."""

    macs: Doubles
    accuracy: Doubles
    low: Doubles
    high: Doubles


def steps(summary: FrontierSummary) -> Steps:
    """Return the front's corners, prolonged to the dense cost (or the dearest point)."""
    front = summary.front
    end = max(summary.points[0].dense_macs, summary.points[-1].executed_macs_per_image)
    return Steps(
        np.array([*(p.executed_macs_per_image for p in front), end]),
        np.array([*(p.accuracy for p in front), front[-1].accuracy]),
        np.append(summary.band.low_P, summary.band.low_P[-1]),
        np.append(summary.band.high_P, summary.band.high_P[-1]),
    )


class Frame(NamedTuple):
    """Ranges of both axes: MACs per image, and accuracy as a share."""

    macs: tuple[float, float]
    accuracy: tuple[float, float]


def frame(summary: FrontierSummary, dense_accuracy: float | None) -> Frame:
    """Return ranges that hold all points, the band and the dense network, with a margin."""
    tops = [*summary.band.high_P, *(p.accuracy for p in summary.points), dense_accuracy or 0.0]
    bottoms = [*summary.band.low_P, *(p.accuracy for p in summary.points)]
    top, bottom = float(max(tops)), float(min(bottoms))
    margin = 0.06 * max(top - bottom, 0.01)
    dearest = max(summary.points[0].dense_macs, summary.points[-1].executed_macs_per_image)
    return Frame((0.0, 1.06 * dearest), (bottom - margin, min(top + margin, 1.005)))


def gain_text(gain: Advantage) -> str:
    """Return an advantage in points of accuracy, with its interval."""
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
