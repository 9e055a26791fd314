"""Gives tests the synthetic records beside this file."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.uncertainty import Evidence

Measured = list[tuple[OperatingPoint, Evidence]]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    path = Path(__file__).with_name("synthetic.py")
    spec = importlib.util.spec_from_file_location("synthetic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(synthetic: ModuleType) -> Measured:
    made = [
        synthetic.make_point(0.3, penalty=0.05),
        synthetic.make_point(0.6, penalty=0.02),
        synthetic.make_point(0.7, method="fixed-width", skill=0.6),
    ]
    return [(point, Evidence.of(record)) for point, record in made]


@pytest.fixture(scope="module")
def summary(measured: Measured) -> FrontierSummary:
    return summarise(
        [point for point, _ in reversed(measured)],
        [evidence for _, evidence in reversed(measured)],
        reference=Reference(),
        replicates=200,
    )
