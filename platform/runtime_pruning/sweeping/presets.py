"""Sweep presets: YAML files that name every setting, and nothing that does not exist."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runtime_pruning.config import build_config
from runtime_pruning.errors import ConfigError, did_you_mean
from runtime_pruning.sweeping.config import SweepConfig


def load_preset(name: str, folder: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Return the sweep that a preset describes.

    Args:
        name: a preset's name in ``folder``, or the path of a YAML file.
        folder: where named presets lie.
        overrides: ``key=value`` assignments, ``settings.rounds=3`` for nested ones; the value is
            read as YAML.

    Raises:
        ConfigError: no such preset, a misspelt key, or a value outside its range.
    """
    values = read_preset(name, folder)
    for assignment in overrides:
        assign(values, assignment)
    return build_config(SweepConfig, values, where=f"Preset {name!r}")


def read_preset(name: str, folder: Path) -> dict[str, Any]:
    """Return a preset's settings as plain values.

    Raises:
        ConfigError: no such preset, or it is not a YAML mapping.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in folder.glob("*.yaml"))
        raise ConfigError(
            f"No preset is called {name!r}.{did_you_mean(name, known)} Known: {known}."
        )
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(f"Preset {name!r} is not valid YAML: {first_line}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"Preset {name!r} must be a mapping of settings, but got {values!r}.")
    return values


def assign(values: dict[str, Any], assignment: str) -> None:
    """Apply one ``a.b=value`` to nested settings in place."""
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"A setting is given as `key=value`, but got {assignment!r}.")
    *parents, last = path.split(".")
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, Mapping):
            raise ConfigError(f"{assignment!r}: {parent!r} holds no settings of its own.")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{assignment!r}: the value is not valid YAML.") from error
