"""Where results go."""

from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.places import results_place, results_root


def test_results_root_prefers_the_choice_then_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(tmp_path / "named"))
    assert results_root(tmp_path / "chosen") == tmp_path / "chosen"
    assert results_root() == tmp_path / "named"


def test_results_at_an_address_are_no_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", "gs://anonymous@bucket/results")
    place = results_place()
    assert (place.local, place.path) == (None, "bucket/results")
    assert place.address == "gs://bucket/results"  # nobody's name or secret
    # What must lie on a disk of this machine.
    assert results_root() == tmp_path / "runtime-pruning" / "gs-bucket-results"
    assert results_place(Path("gs://anonymous@bucket/a/b")).path == "bucket/a/b"
    with pytest.raises(ConfigError, match=r"an address file://, s3:// or gs://, .*abfs://x"):
        results_place("abfs://x/y")


def test_results_at_a_file_address_are_a_folder() -> None:
    assert results_root("file:///shared/my%20results") == Path("/shared/my results")
    assert results_root(Path("/a:b/c")) == Path("/a:b/c")


def test_results_of_a_submitted_job_outlive_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_PRUNING_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert results_root() == tmp_path / "results"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert results_root() == Path.home() / "runtime-pruning"
