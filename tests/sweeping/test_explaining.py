"""What points look at is rebuilt from MLflow alone, or measured where it was not."""

import json
from pathlib import Path

import pytest

from runtime_pruning import cli
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.tracking.rebuild import (
    rebuild_proofs,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


Sweep = tuple[Path, str]


def point_folders(results: Path) -> list[Path]:
    """Return the folders of all points of the sweep."""
    return sorted(path.parent for path in (results / "small").rglob("point.json"))


def point_of(folder: Path) -> OperatingPoint:
    return OperatingPoint.from_json((folder / "point.json").read_text())


def folder_of(results: Path, point_id: str) -> Path:
    (folder,) = [f for f in point_folders(results) if point_of(f).point_id == point_id]
    return folder


def test_explain_rebuilds_what_the_sweep_said(small_sweep: Sweep, tmp_path: Path) -> None:
    results, _ = small_sweep
    arguments = ["--results", str(results), "--out", str(tmp_path)]
    assert cli.main(["explain", "small", *arguments]) == 0
    point_ids = set(rebuild_proofs(f"sqlite:///{results}/mlflow.db", "small", "validation"))
    assert {folder.name for folder in tmp_path.iterdir()} == point_ids
    for point_id in point_ids:
        said = folder_of(results, point_id) / "dynamics" / "dynamics.json"
        assert (
            tmp_path / point_id / "validation" / "dynamics.json"
        ).read_text() == said.read_text()


def test_explain_measures_controls_that_a_point_lacks(
    small_sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = small_sweep
    points = [point_of(folder) for folder in point_folders(results)]
    narrow = min(points, key=lambda point: point.macs_fraction)
    assert narrow.method == "fixed-width"
    arguments = ["--point", narrow.point_id, "--results", str(results), "--out", str(tmp_path)]
    assert cli.main(["explain", "small", *arguments]) == 0
    assert f"{narrow.point_id}: static, 1 distinct plans" in capsys.readouterr().out
    facts = json.loads((tmp_path / narrow.point_id / "validation" / "dynamics.json").read_text())
    for control in ("shuffled", "random"):
        gain = facts["proof"][control]
        assert gain["value"] == 0
        assert -gain["low"] == gain["high"] <= 0.02  # images that were not drawn may differ
    assert facts["decisions"]["distinct_plans"] == 1
    assert cli.main(["explain", "small", *arguments, "--split", "test"]) == 2
    assert "has no" in capsys.readouterr().err
