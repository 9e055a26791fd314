"""Presets: every committed one is valid, and a faulty one is refused in one sentence."""

from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.config import Range, SweepConfig
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_presets_load(path: Path) -> None:
    assert isinstance(load_preset(path.stem, PRESETS), SweepConfig)


def test_digits_asks_for_what_make_frontier_promises() -> None:
    sweep = load_preset("digits", PRESETS)
    assert sweep.trials >= 6
    assert len(sweep.group_counts) >= 2
    penalty = sweep.search["penalty"]
    assert isinstance(penalty, Range)
    assert penalty.scale == "log"


def test_an_override_changes_one_nested_setting() -> None:
    sweep = load_preset("digits", PRESETS, ["trials=3", "prepare.lr=0.01", "search.groups=[2]"])
    assert (sweep.trials, sweep.prepare.lr, sweep.group_counts) == (3, 0.01, (2,))


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"called .digit.\. Did you mean .digits."):
        load_preset("digit", PRESETS)


def test_a_preset_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_preset("list", tmp_path)
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_preset("broken", tmp_path)
