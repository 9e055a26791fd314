"""Strict configuration: what is misspelt or out of range is named, with the way out."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from runtime_pruning.config import build_config
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
