"""The registry of datasets."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime_pruning.datasets.splits import ImageDataset
from runtime_pruning.errors import ConfigError, ContractError, DataError
from runtime_pruning.registry import Registry

DATA_ENV = "RUNTIME_PRUNING_DATA"

DatasetLoader = Callable[..., ImageDataset]
"""What a dataset plugin is: from a folder, or None where the user gave none, to the four splits.

What it takes beside the folder, by keyword, are its settings.
"""

_registry: Registry[DatasetLoader] = Registry("dataset", "runtime_pruning.datasets")


def register(name: str) -> Callable[[DatasetLoader], DatasetLoader]:
    """Return a decorator that files a dataset loader under ``name``."""
    return _registry.register(name)


def get(name: str) -> DatasetLoader:
    """Return the dataset loader called ``name``; nothing is created or loaded.

    Raises:
        UnknownNameError: nobody registered the name; the message suggests the nearest.
    """
    return _registry.get(name)


def names() -> list[str]:
    """Return the names of all known datasets, third-party ones included, sorted."""
    return sorted(_registry)


def load(
    name: str, data_dir: Path | None = None, settings: Mapping[str, Any] | None = None
) -> ImageDataset:
    """Return the dataset called ``name``.

    Args:
        name: of a built-in dataset or of one that an entry point names.
        data_dir: folder with the data; by default the environment variable
            ``RUNTIME_PRUNING_DATA`` names it. A dataset that needs no folder ignores it.
        settings: of this dataset, such as ``image_size`` of ``image-folder``.

    Raises:
        UnknownNameError: nobody registered the name.
        ConfigError: the dataset has no such setting, or refuses its value.
        DataError: the folder or something in it is missing or malformed.
        ContractError: the loader returned something other than an `ImageDataset`.
    """
    loader = _registry.get(name)
    if data_dir is None and (found := os.environ.get(DATA_ENV)):
        data_dir = Path(found)
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"The data folder must exist, but got {str(data_dir)!r}.")
    chosen = dict(settings or {})
    try:
        inspect.signature(loader).bind(data_dir, **chosen)
    except TypeError as error:
        raise ConfigError(f"The dataset {name!r} has no such setting: {error}.") from error
    dataset = loader(data_dir, **chosen)
    if not isinstance(dataset, ImageDataset):
        raise ContractError(f"The dataset {name!r} must be an ImageDataset, but got {dataset!r}.")
    return dataset
