"""Write the tables of README and ``docs`` from the data in ``docs/results``.

A result is a JSON file: rows of figures, where they come from, and the views that pages show. A
page names what it wants in a comment, and `python docs/result_tables.py` writes what follows it:

* ``<!-- table: NAME/VIEW -->``: a view of ``docs/results/NAME.json``;
* ``<!-- origin: NAME -->``: its date, commit, hardware, seeds, training effort and commands;
* ``<!-- index: PAGE PAGE ... -->``: titles and status of pages in the same folder.

Each ends with ``<!-- end -->``. A test writes all pages anew and compares.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"

Value: TypeAlias = str | int | float | bool | None
Record: TypeAlias = Mapping[str, Value]

_BLOCK = re.compile(r"(?ms)^<!-- (table|origin|index): (.*?) -->\n.*?^<!-- end -->$")
_TITLE = re.compile(r"# (.+)\n")
_STATUS = re.compile(r"(?ms)^\*\*Status:\*\* (.+?)[.;:]\s")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Strict):
    """A column of a view.

    Attributes:
        heading: with its unit.
        text: pieces in Python's format syntax; one is left out where a field of its is missing.
        where: the records that it shows, by the values that a field may have.
    """

    heading: str
    text: list[str]
    where: dict[str, list[Value]] = {}

    def of(self, records: Iterable[Record]) -> str:
        """Return the cell for the records of one line."""
        cells = (self._one(record) for record in records if _fits(record, self.where))
        return ", ".join(cell for cell in cells if cell)

    def _one(self, record: Record) -> str:
        present = {name: value for name, value in record.items() if value is not None}
        pieces = (_formatted(piece, present) for piece in self.text)
        return "".join(piece for piece in pieces if piece is not None)


class View(_Strict):
    """A table: a line for each distinct text of the key columns that has a cell to show.

    Attributes:
        keys: columns that tell lines apart.
        cells: columns that are filled from the records of a line.
        where: the records that are shown.
        also: further results whose records are shown together with the own ones.
        order: fields that lines are sorted by; none: the data's order.
    """

    keys: list[Column]
    cells: list[Column]
    where: dict[str, list[Value]] = {}
    also: list[str] = []
    order: list[str] = []


class Result(_Strict):
    """Figures of one experiment and where they come from.

    Attributes:
        date: of the measurement.
        commit: that recorded it.
        hardware: that it ran on.
        seeds: of all chance in it.
        training: what was trained, for how long; costs are wall times unless said.
        commands: that give such figures again.
        notes: what must be known to read the figures.
        columns: names of a row's fields.
        rows: one per figure or set of figures; a missing field is null.
        views: by name.
    """

    date: str
    commit: str
    hardware: str
    seeds: list[int]
    training: str
    commands: list[str]
    notes: str = ""
    columns: list[str]
    rows: list[list[Value]]
    views: dict[str, View]

    def records(self) -> list[Record]:
        """Return the rows by field names."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@cache
def load(name: str) -> Result:
    """Return the result ``docs/results/NAME.json``.

    Raises:
        FileNotFoundError: there is none.
        pydantic.ValidationError: it has a missing, unknown or mistyped field.
    """
    return Result.model_validate_json((RESULTS / f"{name}.json").read_text())


def table(name: str, view_name: str) -> str:
    """Return a view as a Markdown table.

    Raises:
        KeyError: the result has no view of that name.
    """
    result = load(name)
    view = result.views[view_name]
    records = result.records() + [each for other in view.also for each in load(other).records()]
    shown = [record for record in records if _fits(record, view.where)]
    lines: dict[tuple[str, ...], list[Record]] = {}
    for record in sorted(shown, key=lambda each: tuple(each[name] for name in view.order)):
        key = tuple(column.of([record]) for column in view.keys)
        lines.setdefault(key, []).append(record)
    headings = [column.heading for column in view.keys + view.cells]
    cells = {key: [column.of(group) for column in view.cells] for key, group in lines.items()}
    rows = [[*key, *filled] for key, filled in cells.items() if any(filled)]
    return "\n".join(map(_line, [headings, ["---"] * len(headings), *rows]))


def origin(name: str, page: Path) -> str:
    """Return the paragraph and the commands that say where a result comes from."""
    result = load(name)
    path = os.path.relpath(RESULTS / f"{name}.json", page.parent)
    seeds = ", ".join(map(str, result.seeds)) or "none"
    said = [
        f"- **Data:** [{name}.json]({path}), {result.date}, recorded in commit `{result.commit}`.",
        f"- **Hardware:** {result.hardware}. **Seeds:** {seeds}.",
        f"- **Training:** {result.training}.",
        *([f"- **To read it:** {result.notes}"] if result.notes else []),
    ]
    commands = "\n".join(result.commands)
    return "\n".join([*said, "", "```bash", commands, "```"])


def index(names: str, page: Path) -> str:
    """Return a table of pages in the same folder: title and the first words of the status.

    Raises:
        ValueError: a page has no title or no status.
    """
    rows = [["Page", "Status"], ["---", "---"]]
    for name in names.split():
        text = (page.parent / f"{name}.md").read_text()
        title, status = _TITLE.match(text), _STATUS.search(text)
        if title is None or status is None:
            raise ValueError(f"A page has a title and a status, but {name!r} lacks one.")
        rows.append([f"[{title[1]}]({name}.md)", " ".join(status[1].split())])
    return "\n".join(map(_line, rows))


def rendered(page: Path) -> str:
    """Return a page's text with its blocks written anew."""

    def fill(found: re.Match[str]) -> str:
        kind, what = found[1], found[2]
        if kind == "table":
            body = table(*what.split("/"))
        else:
            body = origin(what, page) if kind == "origin" else index(what, page)
        return f"<!-- {kind}: {what} -->\n\n{body}\n\n<!-- end -->"

    return _BLOCK.sub(fill, page.read_text())


def pages() -> Iterator[Path]:
    """Yield README and every page below ``docs``."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def _fits(record: Record, where: Mapping[str, list[Value]]) -> bool:
    return all(record.get(name) in values for name, values in where.items())


def _formatted(piece: str, record: Record) -> str | None:
    try:
        return piece.format_map(record)
    except KeyError:
        return None


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Write every page whose blocks have changed."""
    for page in pages():
        text = rendered(page)
        if text != page.read_text():
            page.write_text(text)
            print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
