"""Memory that shows who reads it unwritten."""

from collections.abc import Iterator

import pytest

from runtime_pruning.executor.native.poison import poisoned


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Has each new value hold NaN until it is written."""
    with poisoned():
        yield
