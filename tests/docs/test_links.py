"""Links of the pages: files that exist, and headings that are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from result_tables import ROOT, pages

PAGES = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "cluster" / "README.md"]
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"(?ms)^```.*?^```$")
CODE = re.compile(r"`[^`\n]*`")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", FENCE.sub("", page.read_text()))
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def dead_links(page: Path) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere."""
    for link in LINK.findall(CODE.sub("", FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_the_link_test_sees_dead_links(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A title: `x` and y\n\n```\n# no heading\n```\n")
    page.write_text(
        "[a](other.md#a-title-x-and-y) [b](other.md#no-heading) [c](gone.md) [d](#here)\n"
        "`[e](code.md)` [f](https://example.org) ![g](gone.png)\n\n## Here\n"
    )
    assert list(dead_links(page)) == ["other.md#no-heading", "gone.md", "gone.png"]


def test_no_page_is_an_orphan() -> None:
    linked = {ROOT / "README.md"} | {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(FENCE.sub("", page.read_text()))
    }
    assert [page for page in PAGES if page.resolve() not in linked] == []


def test_pages_that_code_and_presets_name_exist() -> None:
    named = {}
    for folder in ("platform", "envs", "sweeps", "cluster", "zoo"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".cpp", ".h", ".yaml", ".md"}:
                for page in re.findall(r"\b(?:docs/[\w/-]+|[A-Z]{3,})\.md\b", path.read_text()):
                    named[page] = path
    assert "docs/lab/narrow-streams.md" in named
    assert {page: path for page, path in named.items() if not (ROOT / page).exists()} == {}
