"""Strict configuration: frozen dataclasses that refuse bad values, and misspelt keys, by name.

Types and ranges are pydantic's, declared with each field; what ties fields together is each class's
own ``__post_init__``.
"""

import functools
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from runtime_pruning.errors import ConfigError, did_you_mean

C = TypeVar("C")

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0 turns something off
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]  # of a whole; either end is possible
SomeShare = Annotated[float, Field(gt=0, le=1)]  # more than nothing
PartShare = Annotated[float, Field(ge=0, lt=1)]  # less than all

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_RANGE_FAULTS = {
    "greater_than": "gt",
    "greater_than_equal": "ge",
    "less_than": "lt",
    "less_than_equal": "le",
}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def config_class(cls: type[C]) -> type[C]:
    """Make a class a frozen, keyword-only dataclass that is checked however it is built.

    Raises:
        ConfigError: in its constructor, naming the rule and the value.
    """
    made: Any = checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    unchecked = made.__init__

    @functools.wraps(unchecked)
    def checked(self: C, *args: Any, **kwargs: Any) -> None:
        try:
            unchecked(self, *args, **kwargs)
        except ValidationError as error:
            raise ConfigError(_first_fault(made, error)) from error

    made.__init__ = checked
    result: type[C] = made
    return result


def build_config(config_type: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Return ``config_type`` filled from ``values``, nested dataclasses included.

    Args:
        config_type: a dataclass; ``__moved__`` may tell where settings went that it had.
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
        raise ConfigError(f"{where}: {_first_fault(config_type, error)}") from error


def _refuse_unknown_keys(config_type: type[Any], values: object, where: str) -> None:
    """Walk nested dataclasses; raise on the first key that none of them has."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a mapping of settings, but got {values!r}.")
    hints = get_type_hints(config_type)
    known = [field.name for field in fields(config_type)]
    moved: Mapping[str, str] = getattr(config_type, "__moved__", {})
    for key, value in values.items():
        if key in moved:
            raise ConfigError(f"{where} has no setting {key!r} any more: it is `{moved[key]}` now.")
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{where} has no setting {key!r}.{hint} Known: {known}.")
        if is_dataclass(hints[key]) and isinstance(hints[key], type):
            _refuse_unknown_keys(hints[key], value, f"{where}, {key}")


def _first_fault(config_type: type[Any], error: ValidationError) -> str:
    """Return pydantic's first complaint as one sentence with place and value.

    Where a setting may be of several types, a rule that is broken says more than a type that is
    not met.
    """
    faults = error.errors()
    telling = ("value_error", *_RANGE_FAULTS)
    fault = next((each for each in faults if each["type"] in telling), faults[0])
    *parents, _ = place = _place(fault["loc"])
    if fault["type"] == "value_error":
        message = str(fault["msg"]).removeprefix("Value error, ")
        return f"{'.'.join(place)}: {message}" if place != [""] else message
    if fault["type"] in _RANGE_FAULTS:
        rule = f"`{_rule(config_type, place, fault)}` must hold, but got {fault['input']}."
        return f"{'.'.join(parents)}: {rule}" if parents else rule
    return f"{'.'.join(place)}: {fault['msg']}, but got {fault['input']!r}."


def _place(steps: tuple[int | str, ...]) -> list[str]:
    """Return where a fault is, the index of a sequence's item behind its field's name."""
    place: list[str] = []
    for step in steps:
        if isinstance(step, int) and place:
            place[-1] += f"[{step}]"
        else:
            place.append(str(step))
    return place or [""]


def _rule(config_type: type[Any], place: list[str], fault: Any) -> str:
    """Return the rule that a number breaks, both of its bounds where there are two."""
    bounds = _bounds(config_type, place)
    if not bounds:  # in a union or a sequence: the bound that was broken is known, no other
        key = _RANGE_FAULTS[fault["type"]]
        bounds = {key: fault["ctx"][key]}
    lower = [(sign, bounds[key]) for key, sign in (("gt", "<"), ("ge", "<=")) if key in bounds]
    upper = [(_SIGNS[key], bounds[key]) for key in ("lt", "le") if key in bounds]
    if upper:
        low = "".join(f"{bound:g} {sign} " for sign, bound in lower)
        return f"{low}{place[-1]} {upper[0][0]} {upper[0][1]:g}"
    return f"{place[-1]} {lower[0][0].replace('<', '>')} {lower[0][1]:g}"


def _bounds(config_type: type[Any], place: list[str]) -> dict[str, float]:
    """Return the bounds that the field at a place declares, by pydantic's names of them."""
    owner: Any = config_type
    for step in place[:-1]:
        owner = get_type_hints(owner).get(step) if is_dataclass(owner) else None
    declared = getattr(owner, "__pydantic_fields__", {}).get(place[-1])
    found: dict[str, float] = {}
    for rule in getattr(declared, "metadata", ()):
        found |= {key: getattr(rule, key) for key in _SIGNS if hasattr(rule, key)}
    return found
