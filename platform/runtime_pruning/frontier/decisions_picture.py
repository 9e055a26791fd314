"""What a policy looks at, drawn: its gains, its groups per site, its spending, its images.

Dimensions: N images, C channels, H W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from runtime_pruning.datasets import Split
from runtime_pruning.frontier import style
from runtime_pruning.frontier.dynamics import Dynamics, Slice
from runtime_pruning.frontier.records import Record

_DPI = 140
_COLUMNS = 10  # of the gallery
_CELL = 1.3  # inches that an image takes there with its words
_WORDS = {
    "fixed": "best fixed widths,\nequal MACs",
    "shuffled": "own plans,\nshuffled",
    "random": "random plans,\nsame histogram",
    "threshold": "a threshold,\nequal MACs",
}


def draw_decisions(dynamics: Dynamics, path: Path, *, title: str) -> None:
    """Write four panels: gains over the controls, groups per site, cost by class and difficulty."""
    figure = _figure((11.5, 8.0), layout="constrained")
    gains, sites, classes, deciles = figure.subplots(2, 2).flat
    _draw_gains(gains, dynamics)
    _draw_sites(sites, dynamics)
    decisions = dynamics.decisions
    _draw_slices(classes, decisions.by_class, dynamics, "cost by class")
    _draw_slices(
        deciles, decisions.by_difficulty, dynamics, "cost by difficulty (decile of the dense loss)"
    )
    figure.suptitle(f"{title}: {dynamics.proof.verdict}", fontweight="bold", x=0.02, ha="left")
    figure.savefig(path)


def _draw_gains(axes: Any, dynamics: Dynamics) -> None:
    """Draw the gain over each control with its interval, in points."""
    rows = list(dynamics.proof.advantages.items())
    for row, (_, gain) in enumerate(rows):
        sure = gain.low > 0
        colour = style.YES if sure else style.NO
        axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, lw=2.5)
        axes.plot(100 * gain.value, row, "o", color=colour, ms=8)
        axes.annotate(
            f"{100 * gain.value:+.2f}", (100 * gain.value, row), (0, 9),
            textcoords="offset points", ha="center", fontsize=10, color=colour,
        )  # fmt: skip
    axes.axvline(0, color=style.INK, lw=1)
    axes.set_yticks(range(len(rows)), [_WORDS[name] for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel("points of accuracy")
    level = f"{dynamics.proof.level:.0%}"
    _dress(axes, f"gain over each control, {level} interval over images and seeds")


def _draw_sites(axes: Any, dynamics: Dynamics) -> None:
    """Draw, per site, the shares of the images that run each number of groups."""
    uses = dynamics.decisions.sites
    most = max(len(use.shares) for use in uses)
    colours = colormaps["cividis"](np.linspace(0.05, 0.95, most))
    below = np.zeros(len(uses))
    for group in range(most):
        shares = np.array([use.shares[group] if group < len(use.shares) else 0.0 for use in uses])
        axes.bar(
            range(1, len(uses) + 1), shares, bottom=below, width=0.82, color=colours[group],
            label=str(group + 1),
        )  # fmt: skip
        below += shares
    axes.set_xlabel("site, in order of execution")
    axes.set_xlim(0.4, len(uses) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.legend(
        title="groups", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9
    )
    decisions = dynamics.decisions
    plural = "s" if decisions.distinct_plans != 1 else ""
    _dress(
        axes,
        f"groups per site: {decisions.distinct_plans} distinct plan{plural}, "
        f"entropy {decisions.plan_entropy:.1f} bits",
    )


def _draw_slices(axes: Any, slices: Sequence[Slice], dynamics: Dynamics, title: str) -> None:
    """Draw the mean cost of some slices of the images, with each one's accuracy."""
    if not slices:
        axes.axis("off")
        axes.text(0.5, 0.5, "The dense network was not measured.", ha="center")
        return
    shares = [piece.macs_per_image / dynamics.dense_macs for piece in slices]
    names = [piece.name for piece in slices]
    axes.bar(range(len(slices)), shares, color=style.BAR, width=0.75)
    for x, (piece, share) in enumerate(zip(slices, shares, strict=True)):
        axes.annotate(
            f"{100 * piece.accuracy:.0f}", (x, share), (0, 3), textcoords="offset points",
            ha="center", fontsize=9, color=style.FAINT,
        )  # fmt: skip
    long = max(map(len, names)) > 3
    axes.set_xticks(range(len(slices)), names, rotation=35 if long else 0)
    axes.set_ylabel("MACs, of dense")
    axes.set_ylim(0, 1.15 * max(shares))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    _dress(axes, f"{title}; above: accuracy in %")


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10.5, loc="left", color=style.INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def draw_gallery(
    record: Record, split: Split, path: Path, *, dense_macs: int, title: str, rows: int = 2
) -> None:
    """Write the cheapest and the dearest images, each with label, prediction and cost.

    Args:
        record: of the policy.
        split: all images that the record speaks of, and maybe more; those shown are read.
        path: of the PNG.
        dense_macs: of the dense network, that costs are fractions of.
        title: what was measured.
        rows: of cheap images, and as many of dear ones.
    """
    order_N = np.lexsort((record.image_ids_N, record.executed_macs_N))
    shown = min(rows * _COLUMNS, len(order_N) // 2) or 1
    lines = -(-shown // _COLUMNS)
    height = 0.65 + 2 * (0.3 + _CELL * lines)
    figure = _figure((_CELL * _COLUMNS, height), layout=None)
    figure.text(0.01, 1 - 0.3 / height, title, fontweight="bold", fontsize=12)
    top = height - 0.5
    for name, chosen in (("cheapest", order_N[:shown]), ("dearest", order_N[::-1][:shown])):
        words = f"the {len(chosen)} {name} images"
        figure.text(0.01, (top - 0.2) / height, words, fontsize=10.5)
        top -= 0.3
        places_B = np.isin(split.ids_N, record.image_ids_N[chosen]).nonzero()[0]
        pixels = dict(zip(split.ids_N[places_B].tolist(), split.images_NCHW[places_B], strict=True))
        for place, row in enumerate(chosen.tolist()):
            line, column = divmod(place, _COLUMNS)
            corner = (column + 0.12) / _COLUMNS, (top - _CELL * (line + 1)) / height
            axes = figure.add_axes((*corner, 0.76 / _COLUMNS, 0.72 * _CELL / height))
            axes.axis("off")
            axes.set_title(
                _caption(record, row, split.info.classes, dense_macs),
                fontsize=8,
                color=style.INK if record.correct_N[row] else style.NO,
                pad=2,
            )
            _draw_image(axes, pixels[int(record.image_ids_N[row])])
        top -= _CELL * lines
    figure.savefig(path)


def _caption(record: Record, row: int, classes: Sequence[str], dense_macs: int) -> str:
    """Return what was predicted, what it should have been, and the cost."""
    label, prediction = int(record.labels_N[row]), int(record.predictions_N[row])
    title = (
        classes[label] if label == prediction else f"{classes[prediction]}, not {classes[label]}"
    )
    return f"{title}\n{record.executed_macs_N[row] / dense_macs:.1%}"


def _draw_image(axes: Any, pixels_CHW: npt.NDArray[np.uint8]) -> None:
    """Draw an image in colour, or its first channel in grey."""
    if len(pixels_CHW) == 3:
        axes.imshow(pixels_CHW.transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(pixels_CHW[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _figure(inches: tuple[float, float], layout: Literal["constrained"] | None) -> Figure:
    figure = Figure(figsize=inches, dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure
