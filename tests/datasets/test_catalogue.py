"""Datasets by name: where their folder is looked for, their settings, and what a loader returns."""

from pathlib import Path

import pytest

from runtime_pruning import datasets
from runtime_pruning.datasets import ImageDataset, PolicySplit, catalogue
from runtime_pruning.errors import ConfigError, ContractError, DataError, UnknownNameError
from runtime_pruning.registry import Registry


def test_the_built_in_datasets_are_known_by_name() -> None:
    built_in = {"cifar10", "cifar100", "cluttered-digits", "digits", "image-folder"}
    assert built_in <= set(datasets.names())
    assert datasets.names() == sorted(datasets.names())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data folder must exist, but got .*nowhere"):
        datasets.load("cifar10", tmp_path / "nowhere")


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_DATA", str(tmp_path / "from-env"))
    with pytest.raises(DataError, match="from-env"):
        datasets.load("cifar10")


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"No dataset is called 'cifar'.*mean 'cifar10'"):
        datasets.load("cifar")


def test_a_dataset_without_settings_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'digits' has no such setting: .*'image_size'"):
        datasets.load("digits", None, {"image_size": 8})


def test_a_loader_that_returns_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A registry of its own: what is registered stays registered.
    monkeypatch.setattr(catalogue, "_registry", Registry("dataset", "no.such.group"))

    @datasets.register("broken")
    def broken(data_dir: Path | None) -> ImageDataset:
        return PolicySplit  # type: ignore[return-value]

    assert datasets.get("broken") is broken
    with pytest.raises(ContractError, match="'broken' must be an ImageDataset, but got"):
        datasets.load("broken")
