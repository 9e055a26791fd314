"""The frontier as a reader sees it: an interactive page, a picture, a table.

All three are functions of a :class:`~runtime_pruning.frontier.summary.FrontierSummary`; whoever has
points and their evidence gets it and them from :func:`draw_report`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runtime_pruning.files import replacing, write_text
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.page import draw_page
from runtime_pruning.frontier.picture import draw_picture
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Proof, Proofs
from runtime_pruning.frontier.showing import Extras, Setting, Thumbnails, extreme_ids
from runtime_pruning.frontier.style import gain_text
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.timings import PointTiming, Timings
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.glossary import PAGE, PICTURE, TABLE

PICTURED = 40  # points whose extreme images are shown


SEEN = "\N{DOUBLE DAGGER}"  # marks figures of images that the network may have learned on
LONGER = "\N{DAGGER}"  # marks a point that was trained for longer than the reference
_PROOF_TITLES = ("over fixed widths", "over shuffled", "over a threshold")


class Report(NamedTuple):
    """What was drawn, and where it was written."""

    summary: FrontierSummary
    page: Path
    picture: Path
    table: Path


def draw_report(
    measured: Iterable[tuple[OperatingPoint, Evidence]],
    folder: Path,
    *,
    reference: Reference,
    chosen: Collection[str] | None = None,
    proofs: Proofs | None = None,
    timings: Timings | None = None,
    extras: Extras | None = None,
    setting: Setting | None = None,
    pictures: Thumbnails | None = None,
    dense_accuracy: float | None = None,
) -> Report:
    """Summarise points; write ``frontier.html`` (works offline), ``.png`` and ``.md``.

    Args:
        measured: points of one frontier with what the bootstrap needs of their records.
        folder: where to; created if absent.
        reference: corner of the hypervolume.
        chosen: ids of the points that are the front, where other images chose it.
        proofs: by point id.
        timings: by point id.
        extras: what the page shows of a point beside these, by point id.
        setting: what the page knows of the world around the points.
        pictures: of the images that the points were measured on.
        dense_accuracy: of the unpruned network, where it is known and not among the points yet.

    Raises:
        DataError: no points, or points that may not share a frontier.
    """
    points, evidence = [*zip(*measured, strict=True)] or ((), ())
    summary = summarise(
        points, evidence, reference=reference, chosen=chosen, proofs=proofs, timings=timings
    )
    if summary.dense is not None:
        dense_accuracy = summary.dense.accuracy
    drawn = Report(summary, folder / PAGE, folder / PICTURE, folder / TABLE)
    draw_page(
        summary,
        drawn.page,
        extras=extras,
        setting=_with_pictures(summary, extras, setting, pictures),
    )
    with replacing(drawn.picture) as picture:
        draw_picture(summary, picture, dense_accuracy=dense_accuracy)
    write_text(drawn.table, markdown_table(summary) + "\n")
    return drawn


def _with_pictures(
    summary: FrontierSummary,
    extras: Extras | None,
    setting: Setting | None,
    pictures: Thumbnails | None,
) -> Setting:
    """Return the setting with pictures of what the front's and the proved points spend most on."""
    setting = setting or Setting()
    if pictures is None or extras is None:
        return setting
    chosen = [
        point.point_id
        for p, point in enumerate(summary.points)
        if summary.on_front_P[p] or summary.proof_of(point)
    ][:PICTURED]
    known = (extras[id_].details for id_ in chosen if id_ in extras)
    wanted = extreme_ids(details for details in known if details is not None)
    return replace(setting, classes=pictures.classes, images=pictures(wanted))


def markdown_table(
    summary: FrontierSummary, *, front_only: bool = False, limit: int | None = None
) -> str:
    """Return the points as a Markdown table, cheapest first, those on the front in bold.

    Three columns say what points that were tried gain over their controls, if any was; one for
    each device and size of batch how fast points were, if any was timed.

    Args:
        summary: what to show.
        front_only: leave out points that another beats.
        limit: at most so many rows; the rest is counted below the table.
    """
    level = f"{summary.level:.0%}"
    header = ["method", "groups", "penalty", f"accuracy ({level})", "MACs", "of dense", "P(front)"]
    header += [*_PROOF_TITLES, "verdict"] if summary.proofs else []
    timed = sorted({(each.device, each.batch) for own in summary.timings.values() for each in own})
    header += [f"speed-up, batch {batch}, {device}" for device, batch in timed]
    header += ["effort"]
    rows = [
        _row(summary, p, timed)
        for p in range(len(summary.points))
        if summary.on_front_P[p] or not front_only
    ]
    shown = rows if limit is None else rows[:limit]
    rule = ["---"] * 3 + ["---:"] * (len(header) - 3)
    lines = [_line(header), _line(rule), *(_line(row) for row in shown)]
    if len(shown) < len(rows):
        lines += ["", f"and {len(rows) - len(shown)} more."]
    if any(SEEN in cell for row in shown for cell in row):
        lines += ["", f"{SEEN} the network may have learned on these images: nothing is chosen."]
    if any(LONGER in row[-1] for row in shown):
        lines += ["", f"{LONGER} trained for more epochs than the dense network that is beside it."]
    return "\n".join(lines)


def _row(summary: FrontierSummary, p: int, timed: Sequence[tuple[str, int]]) -> list[str]:
    """Return the cells of one point."""
    point = summary.points[p]
    spread = 100 * (summary.accuracy.high_P[p] - summary.accuracy.low_P[p]) / 2
    cells = [
        point.method,
        str(point.groups),
        penalty_text(point),
        f"{100 * point.accuracy:.2f} ± {spread:.2f} %" + ("" if point.chooses else f" {SEEN}"),
        f"{point.executed_macs_per_image / 1e6:.3g} M",
        f"{100 * point.macs_fraction:.1f} %",
        f"{summary.probability_P[p]:.2f}",
    ]
    if summary.proofs:
        cells += _proof_cells(summary.proof_of(point))
    known = {(each.device, each.batch): each for each in summary.timings.get(point.point_id, ())}
    cells += [speedup_text(known.get(on)) for on in timed]
    cells.append(effort_text(point, summary.dense))
    return [cell and f"**{cell}**" for cell in cells] if summary.on_front_P[p] else cells


def effort_text(point: OperatingPoint, dense: OperatingPoint | None = None) -> str:
    """Return what a point has cost to train, one of its replicates where there are several.

    Args:
        point: whose.
        dense: that losses are counted from; a point that was trained for longer is marked.
    """
    told = [f"{point.epochs:.3g} epochs"]
    told += [f"{point.env_steps:,} decisions"] if point.env_steps else []
    told += [f"{len(point.seeds)} seeds"] if point.seeds else []
    # Passes over parts of the training images are counted in shares of an epoch.
    longer = dense is not None and point.epochs > dense.epochs + 1e-6
    return ", ".join(told) + (f" {LONGER}" if longer else "")


def _proof_cells(proof: Proof | None) -> list[str]:
    """Return gains and verdict; nothing for a point that was not tried."""
    if proof is None:
        return [""] * (len(_PROOF_TITLES) + 1)
    threshold = "" if proof.threshold is None else gain_text(proof.threshold)
    return [gain_text(proof.fixed), gain_text(proof.shuffled), threshold, proof.verdict]


def speedup_text(timing: PointTiming | None) -> str:
    """Return a measured speed-up with its interval, or why there is none."""
    if timing is None:
        return ""
    if timing.speedup is None:
        return timing.verdict
    low, value, high = timing.speedup
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def penalty_text(point: OperatingPoint) -> str:
    """Return the penalty for a reader."""
    return "none" if point.penalty is None else f"{point.penalty:.3g}"


def _line(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
