"""The error tree.

    RuntimePruningError
    ├── UserError                bad input: the message names the rule, the value and a way out
    │   ├── UnknownNameError     a plugin name that nobody registered
    │   ├── ConfigError          a setting outside its range, or a misspelt key
    │   ├── DataError            data that is missing or not of the stated form
    │   ├── TracingError         a backbone that cannot be made prunable; names the node
    │   ├── NativeError          compiled kernels are required, and cannot be had
    │   └── DivergedError        a training whose loss is no number any more
    ├── ContractError            a plugin broke the contract that its kind promises
    └── InterruptedSweepError    a sweep was stopped before its end; its id starts it again

Entry points turn a `UserError` into one line on standard error and exit code 2.
"""

import difflib
from collections.abc import Iterable


class RuntimePruningError(Exception):
    """Root of all errors that this package raises on purpose."""


class UserError(RuntimePruningError, ValueError):
    """The caller gave something that cannot be used."""


class UnknownNameError(UserError):
    """A name that is in no registry."""


class ConfigError(UserError):
    """A setting outside its range, or a key that does not exist."""


class DataError(UserError):
    """Data that is missing, or is not of the form it should have."""


class TracingError(UserError):
    """A backbone that cannot be made prunable."""


class NativeError(UserError):
    """The compiled kernels cannot be had on this machine.

    Args:
        short: the reason in a few words, for the names of what was timed without them.
        told: the reason, with what a compiler said last.
    """

    def __init__(self, short: str, told: str) -> None:
        super().__init__(told)
        self.short = short


class DivergedError(UserError):
    """A training whose loss is no number any more."""


class ContractError(RuntimePruningError):
    """A plugin does not do what its kind promises."""


class InterruptedSweepError(RuntimePruningError):
    """A sweep was stopped before its trials ended; what they recorded is kept."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
