"""Tables of the pages: they are what the data says, and every figure of the data is shown."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import result_tables
from result_tables import ROOT, Column, load, pages, rendered

NAMES = sorted(path.stem for path in result_tables.RESULTS.glob("*.json"))
LAB = ROOT / "docs" / "lab"

RESULT = {
    "date": "2026-11-24",
    "commit": "abc1234",
    "hardware": "one core",
    "seeds": [0, 1],
    "training": "none",
    "commands": ["make frontier"],
    "columns": ["network", "way", "speedup", "low"],
    "rows": [["b", "auto", 2.0, 1.9], ["a", "auto", 3.0, None], ["b", "static", 2.5, None]],
    "views": {
        "speed": {
            "keys": [{"heading": "network", "text": ["{network}"]}],
            "cells": [
                {"heading": way, "text": ["{speedup:.2f}", " [{low:.2f}]"], "where": {"way": [way]}}
                for way in ("static", "auto")
            ],
        }
    },
}


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(result_tables, "RESULTS", tmp_path)
    load.cache_clear()
    (tmp_path / "speeds.json").write_text(json.dumps(RESULT))
    yield tmp_path
    load.cache_clear()


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.name)
def test_a_page_is_what_the_data_says(page: Path) -> None:
    assert page.read_text() == rendered(page), "run `python docs/result_tables.py`"


@pytest.mark.parametrize("name", NAMES)
def test_every_view_and_its_origin_are_shown(name: str) -> None:
    text = "".join(page.read_text() for page in LAB.glob("*.md"))
    assert f"<!-- origin: {name} -->" in text
    everywhere = text + (ROOT / "README.md").read_text()
    for view in load(name).views:
        assert f"<!-- table: {name}/{view} -->" in everywhere


def test_a_table_has_a_line_per_key_and_a_cell_per_record(result: Path) -> None:
    assert result_tables.table("speeds", "speed") == (
        "| network | static | auto |\n"
        "| --- | --- | --- |\n"
        "| b | 2.50 | 2.00 [1.90] |\n"
        "| a |  | 3.00 |"
    )


def test_a_changed_figure_changes_the_page(result: Path) -> None:
    page = result / "page.md"
    page.write_text("before\n\n<!-- table: speeds/speed -->\n<!-- end -->\n\nafter\n")
    page.write_text(rendered(page))
    assert page.read_text() == rendered(page)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\n\nafter\n")
    (result / "speeds.json").write_text(json.dumps(RESULT).replace("2.5", "2.6"))
    load.cache_clear()
    assert "| b | 2.60 | 2.00 [1.90] |" in rendered(page)


def test_lines_are_sorted_where_a_view_says_so(result: Path) -> None:
    view = {**RESULT["views"]["speed"], "order": ["network"]}
    (result / "speeds.json").write_text(json.dumps({**RESULT, "views": {"speed": view}}))
    assert result_tables.table("speeds", "speed").splitlines()[2].startswith("| a |")


def test_records_of_another_result_fill_the_same_line(result: Path) -> None:
    other = {**RESULT, "rows": [["a", "static", 1.25, None]]}
    view = {**RESULT["views"]["speed"], "also": ["others"]}
    (result / "others.json").write_text(json.dumps(other))
    (result / "speeds.json").write_text(json.dumps({**RESULT, "views": {"speed": view}}))
    assert result_tables.table("speeds", "speed").endswith("| a | 1.25 | 3.00 |")


def test_an_origin_names_all_that_reproduces_it(result: Path) -> None:
    text = result_tables.origin("speeds", result / "lab" / "page.md")
    for said in ("../speeds.json", "2026-11-24", "`abc1234`", "one core", "0, 1", "make frontier"):
        assert said in text


def test_several_records_of_a_cell_are_joined() -> None:
    column = Column(heading="x", text=["{a}", " of {b}"])
    assert column.of([{"a": 1, "b": 2}, {"a": None, "b": None}, {"a": 3}]) == "1 of 2, 3"


def test_an_index_shows_titles_and_status(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text(
        "# One\n\n**Question:** Why?\n\n"
        "**Status:** superseded by [two](two.md), and\nby 3.5. More.\n"
    )
    assert result_tables.index("one", tmp_path / "README.md").endswith(
        "| [One](one.md) | superseded by [two](two.md), and by 3.5 |"
    )
    (tmp_path / "bad.md").write_text("# Bad\n")
    with pytest.raises(ValueError, match="'bad' lacks one"):
        result_tables.index("bad", tmp_path / "README.md")


@pytest.mark.parametrize(
    "change", [{"seeds": "0"}, {"sedes": [0]}, {"views": {"speed": {"keys": []}}}]
)
def test_a_faulty_result_is_refused(result: Path, change: dict[str, object]) -> None:
    (result / "speeds.json").write_text(json.dumps({**RESULT, **change}))
    with pytest.raises(ValidationError):
        load("speeds")


def test_a_row_has_a_value_for_each_column(result: Path) -> None:
    (result / "speeds.json").write_text(json.dumps({**RESULT, "rows": [["a"]]}))
    with pytest.raises(ValueError, match="shorter"):
        load("speeds").records()
