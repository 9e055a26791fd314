"""The frontier as a reader sees it: an interactive page, a picture, a table.

All three are functions of a :class:`~runtime_pruning.frontier.summary.FrontierSummary` alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runtime_pruning.frontier.page import draw_page
from runtime_pruning.frontier.picture import draw_picture
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.summary import FrontierSummary


class ReportFiles(NamedTuple):
    """Where a report was written."""

    page: Path
    picture: Path
    table: Path


def write_report(
    summary: FrontierSummary, folder: Path, *, dense_accuracy: float | None = None
) -> ReportFiles:
    """Write ``frontier.html`` (works offline), ``frontier.png`` and ``frontier.md``.

    Args:
        summary: what to show.
        folder: where to; created if absent.
        dense_accuracy: of the unpruned network on the same images, drawn as a reference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(folder / "frontier.html", folder / "frontier.png", folder / "frontier.md")
    draw_page(summary, files.page, dense_accuracy=dense_accuracy)
    draw_picture(summary, files.picture, dense_accuracy=dense_accuracy)
    files.table.write_text(markdown_table(summary) + "\n")
    return files


def markdown_table(
    summary: FrontierSummary, *, front_only: bool = False, limit: int | None = None
) -> str:
    """Return the points as a Markdown table, cheapest first, those on the front in bold.

    Args:
        summary: what to show.
        front_only: leave out points that another beats.
        limit: at most so many rows; the rest is counted below the table.
    """
    level = f"{summary.level:.0%}"
    header = ["method", "groups", "penalty", f"accuracy ({level})", "MACs", "of dense", "P(front)"]
    rows = [
        _row(summary, p)
        for p in range(len(summary.points))
        if summary.on_front_P[p] or not front_only
    ]
    shown = rows if limit is None else rows[:limit]
    lines = [_line(header), _line(["---"] * 3 + ["---:"] * 4), *(_line(row) for row in shown)]
    if len(shown) < len(rows):
        lines += ["", f"and {len(rows) - len(shown)} more."]
    return "\n".join(lines)


def _row(summary: FrontierSummary, p: int) -> list[str]:
    """Return the cells of one point."""
    point = summary.points[p]
    spread = 100 * (summary.accuracy.high_P[p] - summary.accuracy.low_P[p]) / 2
    cells = [
        point.method,
        str(point.groups),
        penalty_text(point),
        f"{100 * point.accuracy:.2f} ± {spread:.2f} %",
        f"{point.executed_macs_per_image / 1e6:.3g} M",
        f"{100 * point.macs_fraction:.1f} %",
        f"{summary.probability_P[p]:.2f}",
    ]
    return [f"**{cell}**" for cell in cells] if summary.on_front_P[p] else cells


def penalty_text(point: OperatingPoint) -> str:
    """Return the penalty for a reader."""
    return "none" if point.penalty is None else f"{point.penalty:.3g}"


def _line(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
