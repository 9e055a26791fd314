"""Gives tests the problem beside this file, of which the best plans are known."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def puzzle() -> ModuleType:
    path = Path(__file__).with_name("puzzle.py")
    spec = importlib.util.spec_from_file_location("puzzle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
