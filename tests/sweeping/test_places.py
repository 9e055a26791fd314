"""Where results go."""

from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.places import results_root


def test_results_root_prefers_the_choice_then_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(tmp_path / "named"))
    assert results_root(tmp_path / "chosen") == tmp_path / "chosen"
    assert results_root() == tmp_path / "named"


@pytest.mark.parametrize("scheme", ["s3", "gs", "abfs", "http"])
def test_results_at_an_address_are_refused_not_written_to_a_folder_of_that_name(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", f"{scheme}://bucket/results")
    with pytest.raises(ConfigError, match=f"a folder that all nodes see, .*{scheme}://bucket"):
        results_root()
    with pytest.raises(ConfigError, match="a folder that all nodes see"):
        results_root(Path(f"{scheme}://bucket/results"))


def test_results_at_a_file_address_are_a_folder() -> None:
    assert results_root(Path("file:///shared/my%20results")) == Path("/shared/my results")
    assert results_root(Path("/a:b/c")) == Path("/a:b/c")


def test_results_of_a_submitted_job_outlive_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_PRUNING_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert results_root() == tmp_path / "results"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert results_root() == Path.home() / "runtime-pruning"
