"""Strict configuration: what is misspelt or out of range is named, with the way out."""

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any, Literal

import pytest

from runtime_pruning.config import (
    Count,
    CountOrNone,
    NotNegative,
    PartShare,
    Positive,
    Share,
    SomeShare,
    build_config,
    config_class,
)
from runtime_pruning.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 1
    kind: Literal["log", "linear"] = "log"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"`steps >= 1` must hold, but got {self.steps}.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    trials: int
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()


def test_nested_values_and_sequences_are_filled() -> None:
    built = build_config(Outer, {"trials": 2, "inner": {"steps": 3}, "names": ["a"]}, where="X")
    assert built == Outer(trials=2, inner=Inner(steps=3), names=("a",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 1, "iner": {}}, "X has no setting 'iner'. Did you mean 'inner'?"),
        ({"trials": 1, "inner": {"stps": 1}}, "X, inner has no setting 'stps'. Did you mean"),
        ({"trials": 1, "inner": {"steps": 0}}, "`steps >= 1` must hold, but got 0."),
        ({"trials": "many"}, "trials: Input should be a valid integer"),
        ({"trials": 1, "inner": {"kind": "cubic"}}, "but got 'cubic'"),
        ({"trials": 1, "inner": 3}, "X, inner must be a mapping of settings, but got 3."),
        ({}, "trials: Field required"),
    ],
)
def test_each_fault_is_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Outer, values, where="X")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@config_class
class Ranges:
    """One setting per kind of range."""

    count: Count = 1
    count_or_none: CountOrNone = 0
    positive: Positive = 1.0
    not_negative: NotNegative = 0.0
    share: Share = 0.5
    some_share: SomeShare = 1.0
    part_share: PartShare = 0.0
    limit: Count | None = None


@config_class
class Nest:
    """Ranges inside."""

    ranges: Ranges = field(default_factory=Ranges)


OUTSIDE: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "`count >= 1` must hold, but got 0."),
    ({"count_or_none": -1}, "`count_or_none >= 0` must hold, but got -1."),
    ({"positive": 0.0}, "`positive > 0` must hold, but got 0.0."),
    ({"positive": float("nan")}, "positive: Input should be a finite number, but got nan."),
    ({"not_negative": -0.5}, "`not_negative >= 0` must hold, but got -0.5."),
    ({"share": 1.5}, "`0 <= share <= 1` must hold, but got 1.5."),
    ({"share": float("nan")}, "`0 <= share <= 1` must hold, but got nan."),
    ({"some_share": 0}, "`0 < some_share <= 1` must hold, but got 0."),
    ({"part_share": 1}, "`0 <= part_share < 1` must hold, but got 1."),
    ({"limit": 0}, "`limit >= 1` must hold, but got 0."),
    ({"count": 1.5}, "count: Input should be a valid integer"),
    ({"cuont": 1}, "cuont: Unexpected keyword argument"),
]


@pytest.mark.parametrize(("values", "message"), OUTSIDE)
def test_a_value_outside_is_refused_however_a_config_is_built(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as built:
        Ranges(**values)
    assert message in str(built.value)
    with pytest.raises(ConfigError):
        replace(Ranges(), **values) if "cuont" not in values else Ranges(**values)
    if "cuont" not in values:
        with pytest.raises(ConfigError) as filled:
            build_config(Nest, {"ranges": values}, where="X")
        assert message.split(": ")[-1] in str(filled.value)
        assert str(filled.value).startswith("X: ranges")


def test_a_config_is_a_frozen_dataclass() -> None:
    config = Ranges(positive=2)
    assert asdict(config)["positive"] == 2.0
    assert [each.default for each in fields(config)][:3] == [1, 0, 1.0]
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == replace(config)
    assert hash(config) == hash(Ranges(positive=2.0))
    with pytest.raises(FrozenInstanceError):
        config.count = 3  # type: ignore[misc]
