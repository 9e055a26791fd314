"""Options of several commands: lists of numbers, shapes, completion."""

from pathlib import Path

import pytest

from runtime_pruning.cli.options import image_shape, preset_names, spread, sweep_ids
from runtime_pruning.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--batch 1 64", "--batch 1 --batch 64"),
        ("bundle --batch 1 2 3 --threads 1", "bundle --batch 1 --batch 2 --batch 3 --threads 1"),
        ("--batch 1 bundle 2", "--batch 1 bundle 2"),
        ("--batch --batch 1", "--batch --batch 1"),
        ("--threads 1 2", "--threads 1 2"),
        ("", ""),
    ],
)
def test_a_list_of_numbers_repeats_its_option(given: str, expected: str) -> None:
    assert spread(given.split(), {"--batch"}) == expected.split()


def test_a_shape() -> None:
    assert image_shape("1,8,9") == (1, 8, 9)
    with pytest.raises(ConfigError, match="but got '8,8'"):
        image_shape("8,8")


def test_names_for_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(tmp_path))
    assert "cifar10-rnp" in preset_names()
    assert sweep_ids() == []
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "sweep.json").touch()
    assert sweep_ids() == ["one"]
