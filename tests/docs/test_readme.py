"""README: its figures come from the data, its commands and paths exist, its code runs."""

import re
from typing import Any

import pytest

from exported_bundle import Exported
from result_tables import ROOT
from runtime_pruning.cli import main

TEXT = (ROOT / "README.md").read_text()
MEASURED = re.compile(r"\d[\d.,]*\s*(?:%(?! interval)|times\b|points?\b|x\b|ms\b|us\b|percent\b)")


def without_blocks(text: str) -> str:
    """Return the text that is written by hand, without code."""
    text = re.sub(r"(?ms)^<!-- (?:table|origin|index): .*?^<!-- end -->$", "", text)
    return re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", text)


def section(title: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"(?ms)^## {title}\n(.*?)(?=^## |\Z)", TEXT)
    assert found is not None, title
    return found[1]


def test_measured_figures_stand_in_tables_from_the_data_alone() -> None:
    assert MEASURED.findall(without_blocks(TEXT)) == []
    assert TEXT.count("<!-- table: ") == 2


@pytest.mark.parametrize("claim", ["runs 7.8 times as fast", "at 53 % of MACs", "gains 1.8 points"])
def test_the_figure_test_sees_a_figure(claim: str) -> None:
    assert MEASURED.findall(without_blocks(f"It {claim}.\n```\n9 %\n```\n`4 ms`")) != []


def test_its_python_runs(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported.folder.parent)
    code = re.search(r"(?ms)^```python\n(.*?)^```$", section("Predict"))
    assert code is not None
    assert exported.folder.name == "bundle"
    names: dict[str, Any] = {"images": exported.data.test.images_NCHW[:50]}
    exec(code[1], names)
    assert names["answer"].macs_B.double().mean() < exported.card.dense_macs
    assert capsys.readouterr().out == f"{names['answer'].labels} {names['answer'].macs_B}\n"


def test_its_words_are_ten() -> None:
    rows = re.findall(r"(?m)^\| (\w[\w ]*) \| .+ \|$", section("Words"))
    assert len(rows[1:]) == 10
    assert len(set(rows)) == 11


def test_its_tree_exists() -> None:
    found = []
    for line in section("Tree").strip("`\n").splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        root = ROOT / "platform" / "runtime_pruning" if line.startswith(" ") else ROOT
        found += [root / name for name in names]
    assert len(found) > 15
    assert [path for path in found if not path.is_dir()] == []
    packages = {path.parent for path in (ROOT / "platform/runtime_pruning").glob("*/__init__.py")}
    assert packages - set(found) == set()


def test_its_subcommands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"runtime-pruning ([a-z][\w-]*)", TEXT))
    assert len(named) >= 6
    for name in named:
        assert main([name, "--help"]) == 0
        assert f"Usage: runtime-pruning {name} " in capsys.readouterr().out


def test_its_presets_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake (\w+)", TEXT))
    assert {"frontier", "test"} <= targets
    assert [name for name in targets if f"\n{name}: " not in makefile] == []
    presets = set(re.findall(r"(?:PRESET=|--preset |preset `)([a-z][\w-]*)", TEXT))
    assert "digits" in presets
    assert [name for name in presets if not (ROOT / f"sweeps/presets/{name}.yaml").exists()] == []


def test_it_says_how_a_job_is_submitted() -> None:
    assert "ray job submit --working-dir . -- python sweeps/frontier.py --preset digits\n" in TEXT
