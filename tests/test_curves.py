"""Readings are taken once."""

from runtime_pruning.curves import Curves


def test_what_was_added_is_taken_once_and_numbers_only() -> None:
    curves = Curves()
    curves.add(1, {"loss": 2.0, "return": float("nan")})
    curves.add(2, {"loss": 1, "return": float("inf")})
    assert curves.take() == {"loss": [(1, 2.0), (2, 1.0)]}
    assert curves.take() == {}
    curves.add(3, {"loss": 0.5})
    assert curves.take() == {"loss": [(3, 0.5)]}
