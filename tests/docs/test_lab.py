"""Pages of experiments: each asks one question, says whether its answer holds, and is listed."""

import re
from pathlib import Path

import pytest

from result_tables import ROOT

LAB = ROOT / "docs" / "lab"
PAGES = sorted(path for path in LAB.glob("*.md") if path.name != "README.md")
STATUS = re.compile(r"\*\*Status:\*\* (holds|refuted|superseded by \[[^]]+\]\(([\w-]+)\.md\))[.,]")


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_page_has_a_title_a_question_and_a_status(page: Path) -> None:
    parts = page.read_text().split("\n\n")
    assert re.fullmatch(r"# .+", parts[0])
    assert re.fullmatch(r"(?s)\*\*Question:\*\* [A-Z].+\?", parts[1])
    assert STATUS.match(parts[2]), parts[2]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_page_says_how_it_was_asked_and_what_was_learned(page: Path) -> None:
    text = page.read_text()
    assert "<!-- origin: " in text or "\n## Command\n" in text
    assert "\n## What was learned\n" in text


def test_what_supersedes_a_page_holds_in_the_end() -> None:
    after = {}
    for page in PAGES:
        found = STATUS.search(page.read_text())
        assert found is not None
        after[page.stem] = found[2]
    assert any(after.values())
    for name in after:
        seen = [name]
        while (following := after[seen[-1]]) is not None:
            assert following not in seen, f"{name} is superseded by itself"
            seen.append(following)


def test_the_index_lists_each_page_once() -> None:
    listed = re.findall(r"^\| \[.+?\]\(([\w-]+)\.md\)", (LAB / "README.md").read_text(), re.M)
    assert sorted(listed) == [page.stem for page in PAGES]
