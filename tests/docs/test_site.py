"""The site builds, and the snippets of its pages run."""

import re
from pathlib import Path
from typing import Any

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from exported_bundle import Exported
from result_tables import ROOT


def test_it_builds(tmp_path: Path) -> None:
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build(config)
    assert "Ship a point" in (tmp_path / "index.html").read_text()
    assert (tmp_path / "lab" / "index.html").is_file()


@pytest.mark.parametrize("page", ["index.md", "ship.md"])
def test_a_page_is_no_longer_than_a_screen(page: str) -> None:
    assert len((ROOT / "docs" / page).read_text().splitlines()) <= 60


def test_snippets_of_shipping_run(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.folder.parent)
    snippets = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "docs/ship.md").read_text())
    names: dict[str, Any] = {"images": exported.data.test.images_NCHW[:64]}
    for snippet in snippets:
        exec(snippet, names)
    assert len(snippets) == 3
    assert names["low"] < names["accuracy"] < names["high"]
    assert len(names["answer"].labels) == 8


def test_its_commands_exist() -> None:
    from runtime_pruning.cli.app import build_app

    known = {
        command.name or command.callback.__name__.replace("_", "-")
        for group in build_app().registered_groups
        if group.typer_instance is not None
        for command in group.typer_instance.registered_commands
        if command.callback is not None
    }
    for page in ("index.md", "ship.md"):
        named = re.findall(r"runtime-pruning ([a-z][\w-]*)", (ROOT / "docs" / page).read_text())
        assert set(named) <= known
