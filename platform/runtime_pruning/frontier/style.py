"""What page and picture share: colours, symbols, words, and the shape of the front's line.

Colours are those of Okabe & Ito, "Color Universal Design", 2008: apart for every kind of colour
vision; each method has a symbol of its own besides.
"""

from typing import NamedTuple

import numpy as np

from runtime_pruning.frontier.dominance import Doubles
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Advantage, Proof, Verdict
from runtime_pruning.frontier.summary import DENSE, FrontierSummary

INK = "#222222"
FAINT = "#6b6b6b"
FRONT = "#222222"
BAND = "rgba(34,34,34,0.14)"
BAR = "#56B4E9"
YES = "#009E73"
NO = "#D55E00"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Look(NamedTuple):
    """How a method's points are drawn."""

    colour: str
    marker: str  # matplotlib's name
    symbol: str  # plotly's name


_SHAPES = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("v", "triangle-down"),
    ("P", "cross"),
)


def looks(summary: FrontierSummary) -> dict[str, Look]:
    """Return a look per method, in order of name, so that it does not change with new points.

    The dense network has none: it is a star.
    """
    methods = sorted({point.method for point in summary.points} - {DENSE})
    return {
        method: Look(_COLOURS[m % len(_COLOURS)], *_SHAPES[m % len(_SHAPES)])
        for m, method in enumerate(methods)
    }


# What is laid over the points of each verdict: words, matplotlib's marker, plotly's symbol.
VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "dynamic": ("decisions depend on the image", "o", "circle-open"),
    "static": ("not shown to beat its controls: static", "x", "x-thin-open"),
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


def label(point: OperatingPoint, proof: Proof | None = None) -> str:
    """Return a point's hover text in plotly's markup: what it is, what it costs, how to get it."""
    settings = "<br>".join(f"{k} = {v}" for k, v in sorted(point.config.items())) or "none"
    figures = point.figures
    gains = ""
    if proof is not None:
        gains = (
            f"<i>decisions</i> {proof.verdict}; points over<br>"
            f"fixed widths {gain_text(proof.fixed)}<br>"
            f"its plans shuffled {gain_text(proof.shuffled)}<br>"
            f"random plans {gain_text(proof.random)}<br>"
        )
    return (
        f"<b>{point.method}</b>, {point.groups} groups, seed {point.seed}<br>"
        f"accuracy {100 * point.accuracy:.2f} %<br>"
        f"{point.executed_macs_per_image / 1e6:.3f} M MACs, "
        f"{100 * point.macs_fraction:.1f} % of dense<br>"
        f"p50 {figures.executed_macs_p50 / 1e6:.3f} M, "
        f"p90 {figures.executed_macs_p90 / 1e6:.3f} M<br>"
        f"{gains}<i>configuration</i><br>{settings}<br>"
        f"<i>point</i> {point.point_id}"
    )
