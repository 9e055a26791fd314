"""A sweep has a folder of its own, and goes on with its own settings only."""

from pathlib import Path

import pytest

from runtime_pruning.cli import main
from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.run import open_folder

ROOT = Path(__file__).parents[2]


PRESETS = ROOT / "sweeps" / "presets"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that bad input is answered with."""
    code = main(["sweep", "--preset", "digits", *arguments])
    printed = capsys.readouterr().err.strip()
    assert code == 2
    assert printed.startswith("error: ")
    assert "\n" not in printed
    return printed


@pytest.mark.parametrize("sweep_id", ["a/b", "it's", "..", "-x"])
def test_a_sweep_id_must_name_a_folder_and_a_tag(
    capsys: pytest.CaptureFixture[str], sweep_id: str
) -> None:
    assert "A sweep id holds letters" in refusal(capsys, f"--sweep-id={sweep_id}")


def test_a_sweep_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    first = load_preset("digits", PRESETS)
    assert open_folder(tmp_path, "one", first) == open_folder(tmp_path, "one", first)
    with pytest.raises(ConfigError, match=r"was started with trials=\d+ .* but got 99"):
        open_folder(tmp_path, "one", load_preset("digits", PRESETS, ["trials=99"]))
