"""A sweep has a folder of its own, and goes on with its own settings only."""

import json
from pathlib import Path

import pytest
from refused import refusal

from runtime_pruning.errors import ConfigError
from runtime_pruning.places import Place
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.run import alone, new_sweep_id, open_place

ROOT = Path(__file__).parents[2]


PRESETS = ROOT / "sweeps" / "presets"


@pytest.mark.parametrize("sweep_id", ["a/b", "it's", "..", "-x"])
def test_a_sweep_id_must_name_a_folder_and_a_tag(
    capsys: pytest.CaptureFixture[str], sweep_id: str
) -> None:
    assert "A sweep id holds letters" in refusal(capsys, f"--sweep-id={sweep_id}")


def test_a_sweep_goes_on_with_its_own_settings_and_any_resources(tmp_path: Path) -> None:
    def settings(*changes: str) -> SweepConfig:
        return load_preset("digits", PRESETS, changes)

    results = Place.at(tmp_path)
    assert open_place(results, "one", settings()) == open_place(results, "one", settings())
    with pytest.raises(ConfigError) as refused:
        open_place(results, "one", settings("trials=99", "settings.rounds=7", "search.groups=[2]"))
    assert (
        "changes search.groups from [2.0, 4.0] to [2.0], settings.rounds from 2 to 7, "
        "trials from 6 to 99: choose another --sweep-id."
    ) in str(refused.value)
    open_place(results, "one", settings("resources.trial.cpus=2", "resources.concurrent=1"))
    kept = json.loads((tmp_path / "one" / "sweep.json").read_text())
    assert (kept["resources"]["trial"]["cpus"], kept["trials"]) == (2, 6)


def test_one_process_at_a_time_runs_a_sweep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with alone(tmp_path, "taken"):
        told = refusal(capsys, "--sweep-id", "taken", "--results", str(tmp_path))
        assert "Sweep 'taken' is running already" in told
    with alone(tmp_path, "taken"):
        pass


def test_starts_in_the_same_second_get_two_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    ids = [new_sweep_id("a/digits.yaml", Place.at(tmp_path)) for _ in range(3)]
    assert ids == [f"digits-20260101-000000{end}" for end in ("", "-2", "-3")]


def test_results_that_cannot_be_written_are_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(file))
    assert f"{file} cannot be used: " in refusal(capsys)
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", "hdfs://host/results")
    assert "file://, s3:// or gs://, but got 'hdfs://host/results'" in refusal(capsys)
