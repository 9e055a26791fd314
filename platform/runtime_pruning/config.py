"""Strict configuration: frozen dataclasses filled from plain mappings, misspelt keys refused.

Types are coerced and checked by pydantic; the ranges are each dataclass's own ``__post_init__``.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from runtime_pruning.errors import ConfigError, did_you_mean

C = TypeVar("C")


def build_config(config_type: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Return ``config_type`` filled from ``values``, nested dataclasses included.

    Args:
        config_type: a dataclass.
        values: settings by field name; nested mappings fill nested dataclasses.
        where: what the values are, for messages: ``"preset digits"``.

    Raises:
        ConfigError: a key that does not exist (the nearest is suggested), a missing one, a value
            of the wrong type, or one outside its range.
    """
    _refuse_unknown_keys(config_type, values, where)
    try:
        return TypeAdapter(config_type).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error)}") from error


def _refuse_unknown_keys(config_type: type[Any], values: object, where: str) -> None:
    """Walk nested dataclasses; raise on the first key that none of them has."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a mapping of settings, but got {values!r}.")
    hints = get_type_hints(config_type)
    known = [field.name for field in fields(config_type)]
    for key, value in values.items():
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{where} has no setting {key!r}.{hint} Known: {known}.")
        if is_dataclass(hints[key]) and isinstance(hints[key], type):
            _refuse_unknown_keys(hints[key], value, f"{where}, {key}")


def _first_fault(error: ValidationError) -> str:
    """Return pydantic's first complaint as one sentence with place and value.

    Where a setting may be of several types, a rule that is broken says more than a type that is
    not met.
    """
    faults = error.errors()
    fault = next((each for each in faults if each["type"] == "value_error"), faults[0])
    place = ".".join(str(step) for step in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, but got {fault['input']!r}."
