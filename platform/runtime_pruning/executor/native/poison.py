"""Memory that nobody wrote, made visible: it holds NaN while a test asks for that."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from runtime_pruning.executor.native import library


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill each new value with NaN before it is written, so that a result shows what reads it.

    In the compiled library these are the values between its calls and what a call keeps for itself;
    elsewhere the tensors that PyTorch makes without writing to them. All threads are concerned.
    """
    settings: Any = torch.utils.deterministic
    fills, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, True
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)  # PyTorch fills memory in this mode alone
    library.set_poisoned(True)
    try:
        yield
    finally:
        library.set_poisoned(False)
        settings.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
