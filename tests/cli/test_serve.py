"""Commands that serve: what is refused before anything listens."""

from pathlib import Path

import pytest

from exported_bundle import Exported
from runtime_pruning.cli import main


def test_a_model_of_mlflows_is_written(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main(["to-mlflow", str(exported.folder), "--out", str(out)]) == 0
    assert f"mlflow models serve --model-uri {out}" in capsys.readouterr().out
    assert (out / "MLmodel").is_file()
    assert main(["to-mlflow", str(exported.folder), "--out", str(out)]) == 2
    assert "must be empty" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["mlflow", "ray"])
def test_what_is_no_bundle_is_not_served(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), "--engine", engine]) == 2
    assert "An exported bundle holds a card.json" in capsys.readouterr().err
