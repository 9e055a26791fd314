"""Several methods in one frontier: settings are merged, faults refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime_pruning.cli import main
from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.bench import merged, read_bench

BENCHES = Path(__file__).parents[2] / "sweeps" / "benches"

TINY: dict[str, Any] = {
    "base": {
        "backbone": "digits-cnn",
        "dataset": "digits",
        "controls": ["dense"],
        "trials": 1,
        "align": 4,
        "held_out_limit": 64,
        "search": {"groups": [2]},
        "prepare": {"pretraining_epochs": 1, "anywidth_epochs": 1, "pad": 1, "flip": False},
        "proof": {"points": 0},
        "timing": {"points": 0},
    },
    "methods": {
        "widths": {"method": "fixed-width"},
        "together": {"method": "cascade", "settings": {"members": ["earlier"]}},
    },
}


def write(folder: Path, bench: Any) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(bench, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("path", sorted(BENCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_benches_load(path: Path) -> None:
    assert len(read_bench(path.stem, BENCHES)) > 2


def test_what_is_nested_is_merged_and_lists_are_replaced() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merged(base, {"a": {"c": [5]}, "e": {"f": 6}}) == {
        "a": {"b": 1, "c": [5]},
        "d": 3,
        "e": {"f": 6},
    }
    assert base["a"] == {"b": 1, "c": [1, 2]}


def test_earlier_members_are_the_sweeps_before(tmp_path: Path) -> None:
    entries = read_bench(write(tmp_path, TINY), tmp_path)
    assert [entry.name for entry in entries] == ["widths", "together"]
    sweep = entries[1].sweep(["one", "two"])
    assert sweep.settings["members"] == ["one", "two"]
    assert sweep.prepare == entries[0].sweep([]).prepare


@pytest.mark.parametrize(
    ("bench", "message"),
    [
        ({"base": {}}, "must hold `base` and `methods`"),
        ({**TINY, "more": 1}, "and nothing else, but got"),
        ({**TINY, "methods": []}, "must hold `base` and `methods`"),
        (
            {**TINY, "methods": {"widths": {"method": "fixed-width", "trails": 2}}},
            "Bench, 'widths' has no setting 'trails'. Did you mean 'trials'",
        ),
    ],
)
def test_a_faulty_bench_is_refused(tmp_path: Path, bench: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_bench(write(tmp_path, bench), tmp_path)
    assert message in str(caught.value)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_sweeps_are_run_once_and_stand_in_one_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 1}')
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = ["bench", write(tmp_path, TINY), "--results", str(tmp_path / "results")]
    assert main(command) == 0
    printed = capfd.readouterr().out
    rows = [line.split(" | ")[0] for line in printed.splitlines() if line.startswith("| ")]
    assert {"| widths", "| together"} <= set(rows)
    folder = tmp_path / "results" / "tiny"
    assert {path.name for path in folder.iterdir()} >= {"frontier.html", "methods.md"}

    assert main(command) == 0  # nothing is run again
    printed = capfd.readouterr().out
    assert "Sweep tiny-widths is finished." in printed
    assert "Sweep tiny-together is finished." in printed
