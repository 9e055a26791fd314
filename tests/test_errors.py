"""Which errors are a person's mistakes, and what is suggested."""

import pytest

from runtime_pruning import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.UnknownNameError,
        errors.ConfigError,
        errors.DataError,
        errors.TracingError,
        errors.NativeError,
        errors.DivergedError,
    ],
)
def test_mistakes_are_value_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.UserError)
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("kind", [errors.ContractError, errors.InterruptedSweepError])
def test_what_is_nobodys_mistake_is_none(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.RuntimePruningError)
    assert not issubclass(kind, errors.UserError)


def test_every_error_is_in_the_tree_of_the_modules_docstring() -> None:
    kinds = {name for name in vars(errors) if name.endswith("Error")}
    told = {word for word in str(errors.__doc__).split() if word.endswith("Error")}
    assert told == kinds


def test_native_errors_have_a_short_reason_too() -> None:
    error = errors.NativeError("no compiler", "No C++ compiler was found: set CXX.")
    assert (error.short, str(error)) == ("no compiler", "No C++ compiler was found: set CXX.")


def test_the_nearest_name_is_suggested() -> None:
    known = ["digits", "cifar10", "cifar100"]
    assert errors.did_you_mean("cifar-10", known) == " Did you mean 'cifar10'?"
    assert errors.did_you_mean("imagenet", known) == ""
