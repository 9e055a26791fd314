"""The exam: held when it is asked for, of a sweep that is there, and counted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.places import Place
from runtime_pruning.sweeping.exam import count_reading, examined
from runtime_pruning.sweeping.ledger import nth
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.run import open_place

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


def test_each_reading_is_written_down(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    assert [count_reading(place, points) for points in (7, 2)] == [1, 2]
    written = json.loads((tmp_path / "exams.json").read_text())
    assert [each["points"] for each in written] == [7, 2]
    assert all(each["at"].endswith("Z") for each in written)
    assert [nth(number) for number in (1, 2, 3, 4, 11, 12, 21)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st",
    ]  # fmt: skip


def test_a_sweep_that_ended_without_an_exam_goes_on_with_one(tmp_path: Path) -> None:
    sweep = load_preset("cluttered-digits", PRESETS, ["exam=false", "search.groups=[2]"])
    results = Place.at(tmp_path)
    open_place(results, "done", sweep)
    found = examined("done", results)
    assert found == replace(sweep, exam=True)
    assert open_place(results, "done", found) == results / "done"
    with pytest.raises(ConfigError, match="`exam` excepted, but this start changes align"):
        open_place(results, "done", replace(found, align=2))


def test_a_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No sweep 'gone' lies in "):
        examined("gone", Place.at(tmp_path))


def test_no_sweep_reads_the_test_split_unasked() -> None:
    for path in PRESETS.glob("*.yaml"):
        asked = load_preset(path.stem, PRESETS).exam
        assert asked == ("digits" in path.stem), path  # the embedded ones, for show
