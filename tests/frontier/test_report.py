"""Page, picture and table of a frontier whose shape is known."""

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Advantage, Proof
from runtime_pruning.frontier.report import draw_report, markdown_table
from runtime_pruning.frontier.style import steps
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.uncertainty import Evidence

Measured = list[tuple[OperatingPoint, Evidence]]


def data_of(page: Path) -> dict[str, Any]:
    """Return what a page shows."""
    text = page.read_text().partition('id="data">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(text)
    return data


def proof(low: float) -> Proof:
    gain = {"value": low + 0.01, "high": low + 0.02, "accuracy": 0.5, "macs_per_image": 1e6}
    one = Advantage(low=low, **gain)
    return Proof(fixed=one, shuffled=one, random=one, threshold=one, level=0.95)


EFFORT = "**2 epochs, 1,000 decisions**"


def test_the_front_is_a_staircase_up_to_the_dense_cost(summary: FrontierSummary) -> None:
    cheap, dear = summary.front
    corner = steps(summary)
    macs = [cheap.executed_macs_per_image, dear.executed_macs_per_image, cheap.dense_macs]
    assert corner.macs.tolist() == macs
    assert corner.accuracy.tolist() == [cheap.accuracy, dear.accuracy, dear.accuracy]
    assert (corner.low <= corner.accuracy).all()
    assert (np.diff(corner.low) >= 0).all()


def test_report_files(measured: Measured, tmp_path: Path) -> None:
    files = draw_report(measured, tmp_path / "report", reference=Reference(), dense_accuracy=0.917)
    png = files.picture.read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (1376, 800)
    page = files.page.read_text()
    # Works offline: the library is inside, and nothing is fetched.
    assert "uPlot" in page
    assert not re.search(r"<script[^>]+src=|<link[^>]+href=\"(?!data:)", page)
    data = data_of(files.page)
    assert data["points"]["point_id"] == [point.point_id for point in files.summary.points]
    assert data["title"] == "resnet20-cifar on cifar10: accuracy against cost"
    assert data["subtitle"] == "3 operating points of s1; validation split, 500 images; seed 0"
    assert files.table.read_text() == markdown_table(files.summary) + "\n"


def test_a_report_without_the_dense_network(measured: Measured, tmp_path: Path) -> None:
    data = data_of(draw_report(iter(measured), tmp_path, reference=Reference()).page)
    assert data["points"]["dense"] == [False] * 3
    assert data["points"]["verdict"] == [None] * 3
    assert data["points"]["class_loss"] == [None] * 3


def test_the_dense_network_has_no_colour_of_a_method(
    measured: Measured, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(1.0, method="dense")
    both = [*measured, (point, Evidence.of(record))]
    files = draw_report(both, tmp_path, reference=Reference(), dense_accuracy=0.1)
    assert files.summary.dense == point
    data = data_of(files.page)
    assert data["methods"] == ["fixed-width", "rnp", "dense"]
    assert data["looks"]["dense"] == {"colour": "ink", "shape": "star"}
    assert data["points"]["dense"] == [p == point for p in files.summary.points]


def test_who_was_trained_for_longer_than_the_reference_is_marked(
    measured: Measured, synthetic: ModuleType
) -> None:
    dense, record = synthetic.make_point(1.0, method="dense")
    points = [*measured, (replace(dense, epochs=1.5, env_steps=0), Evidence.of(record))]
    summary = summarise(*zip(*points, strict=True), reference=Reference())
    *rows, empty, note = markdown_table(summary).splitlines()[2:]
    assert [row.count("\N{DAGGER}") for row in rows] == [1] * len(measured) + [0]
    assert "1.5 epochs |" in rows[-1] or "**1.5 epochs** |" in rows[-1]
    assert (empty, note[:24]) == ("", "\N{DAGGER} trained for more epoch")


def test_figures_of_images_that_were_learned_on_are_marked(measured: Measured) -> None:
    (first, facts), *others = measured
    points = [(replace(first, saw_held_out=True), facts), *others]
    summary = summarise(*zip(*points, strict=True), reference=Reference())
    lines = markdown_table(summary).splitlines()
    assert sum("% \N{DOUBLE DAGGER} |" in line for line in lines) == 1
    assert lines[-1].endswith("may have learned on these images: nothing is chosen.")
    assert first.point_id not in {point.point_id for point in summary.front}


def test_verdicts_are_in_the_table_and_on_the_page(measured: Measured, tmp_path: Path) -> None:
    cheap, dear = measured[0][0], measured[1][0]
    proofs = {cheap.point_id: proof(0.001), dear.point_id: proof(0.0), "of another": proof(0.0)}
    files = draw_report(measured, tmp_path, reference=Reference(), proofs=proofs)
    assert set(files.summary.proofs) == {cheap.point_id, dear.point_id}
    lines = files.table.read_text().splitlines()
    titles = "| over fixed widths | over shuffled | over a threshold | verdict | effort |"
    assert lines[0].endswith(titles)
    gain = "**+1.10 [+0.10, +2.10]**"
    assert lines[2].endswith(f"| {gain} | {gain} | {gain} | **dynamic** | {EFFORT} |")
    assert lines[3].endswith(f"| **static** | {EFFORT} |")
    assert lines[4].endswith("|  |  |  |  | 2 epochs, 1,000 decisions |")
    data = data_of(files.page)
    assert data["points"]["verdict"] == ["dynamic", "static", None]
    gains = data["cards"][cheap.point_id]["gains"]
    assert gains["controls"]["shuffled"]["value"] == pytest.approx(0.011)
    assert gains["verdict"] == "dynamic"


def test_what_other_images_chose_is_the_front(measured: Measured, tmp_path: Path) -> None:
    cheapest, dearest = measured[0][0], measured[-1][0]
    usual = draw_report(measured, tmp_path, reference=Reference()).summary
    files = draw_report(
        measured, tmp_path, reference=Reference(), chosen={dearest.point_id, cheapest.point_id}
    )
    assert {point.point_id for point in files.summary.front} == {
        cheapest.point_id,
        dearest.point_id,
    }
    assert files.summary.hypervolume < usual.hypervolume
    with pytest.raises(DataError, match="None of the points that were chosen is among"):
        draw_report(measured, tmp_path, reference=Reference(), chosen={"of another sweep"})


def test_table(summary: FrontierSummary) -> None:
    cheap = summary.front[0]
    lines = markdown_table(summary).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith(f"| **rnp** | **4** | **0.05** | **{100 * cheap.accuracy:.2f} ±")
    assert lines[4].startswith("| fixed-width | 4 | none |")
    assert {line.count("|") for line in lines} == {9}
    short = markdown_table(summary, front_only=True, limit=1).splitlines()
    assert short == [*lines[:3], "", "and 1 more."]
