"""The frontier as a PNG for a README, drawn by matplotlib without a display."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from runtime_pruning.frontier import style
from runtime_pruning.frontier.summary import DENSE, FrontierSummary

_INCHES = (8.6, 5.0)
_DPI = 160


def draw_picture(summary: FrontierSummary, path: Path, *, dense_accuracy: float | None) -> None:
    """Write the picture to ``path``; the dense network is a star if its accuracy is known."""
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_front(axes, summary)
    _draw_points(axes, summary)
    _draw_verdicts(axes, summary)
    _draw_dense(axes, summary, dense_accuracy)
    _dress(axes, summary, dense_accuracy)
    figure.savefig(path, format="png")


def _draw_front(axes: Any, summary: FrontierSummary) -> None:
    """Draw the staircase and its band."""
    corner = style.steps(summary)
    axes.fill_between(
        corner.macs,
        corner.low,
        corner.high,
        step="post",
        color=style.FRONT,
        alpha=0.13,
        linewidth=0,
        label=f"{summary.level:.0%} band of the front",
    )
    axes.step(corner.macs, corner.accuracy, where="post", color=style.FRONT, lw=1.6, label="front")


def _draw_points(axes: Any, summary: FrontierSummary) -> None:
    """Draw each method's points: filled on the front, hollow behind it."""
    methods = np.array([point.method for point in summary.points])
    macs = np.array([point.executed_macs_per_image for point in summary.points])
    accuracy = np.array([point.accuracy for point in summary.points])
    for method, look in style.looks(summary).items():
        if method == DENSE:
            continue
        on, off = (methods == method) & summary.on_front_P, (methods == method)
        off = off & ~summary.on_front_P
        shape = {"marker": look.marker, "s": 46, "edgecolors": look.colour, "linewidths": 1.4}
        axes.scatter(macs[off], accuracy[off], facecolors="white", zorder=3, **shape)
        axes.scatter(
            macs[on], accuracy[on], facecolors=look.colour, zorder=4, label=method, **shape
        )


def _draw_verdicts(axes: Any, summary: FrontierSummary) -> None:
    """Ring the points whose decisions depend on the image; cross those whose decisions do not."""
    for verdict, points in style.proved(summary).items():
        words, marker = style.VERDICTS[verdict]
        ring = {"facecolors": "none", "edgecolors": style.INK, "s": 150}
        look = ring if verdict == "dynamic" else {"color": style.INK, "s": 60}
        axes.scatter(
            [point.executed_macs_per_image for point in points],
            [point.accuracy for point in points],
            marker=marker,
            linewidths=1.2,
            zorder=6,
            label=words,
            **look,
        )


def _draw_dense(axes: Any, summary: FrontierSummary, dense_accuracy: float | None) -> None:
    """Mark the cost of the dense network, and the network itself if it was measured."""
    dense_macs = summary.points[0].dense_macs
    axes.axvline(dense_macs, color=style.FAINT, lw=1, ls=(0, (4, 3)), zorder=1)
    if dense_accuracy is None:
        return
    axes.axhline(dense_accuracy, color=style.FAINT, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.scatter(
        [dense_macs], [dense_accuracy], marker="*", s=230, color=style.INK, zorder=5,
        label="dense network",
    )  # fmt: skip


def _dress(axes: Any, summary: FrontierSummary, dense_accuracy: float | None) -> None:
    """Set ranges, ticks, titles and legend."""
    frame = style.frame(summary, dense_accuracy)
    axes.set_xlim(*frame.macs)
    axes.set_ylim(*frame.accuracy)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda macs, _: f"{macs / 1e6:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.set_xlabel("executed MACs per image, millions (policy included)", fontsize=11)
    axes.set_ylabel("accuracy", fontsize=11)
    axes.tick_params(labelsize=10)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    dense_macs = summary.points[0].dense_macs
    top = axes.secondary_xaxis(
        "top", functions=(lambda macs: macs / dense_macs, lambda share: share * dense_macs)
    )
    top.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    top.xaxis.set_major_locator(MaxNLocator(6))
    top.set_xlabel("share of the dense network's MACs", fontsize=10, color=style.FAINT)
    top.tick_params(labelsize=9, colors=style.FAINT)
    top.spines["top"].set_visible(False)
    title, subtitle = style.words(summary)
    axes.figure.suptitle(title, fontsize=13, fontweight="bold", x=0.09, ha="left")
    axes.set_title(subtitle, fontsize=9.5, color=style.FAINT, loc="left", pad=8)
    legend = axes.legend(loc="lower right", fontsize=10, frameon=True, framealpha=1.0)
    legend.get_frame().set_edgecolor("none")
