"""Gives tests the synthetic records of the frontier, and fresh SQLite stores."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from runtime_pruning.tracking.mlflow_store import FrontierTracker


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    path = Path(__file__).parents[1] / "frontier" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("synthetic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's: migrating takes seconds, copying does not."""
    from runtime_pruning.tracking.storage import open_store

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    """A store of the test's own."""
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> FrontierTracker:
    """A tracker of sweep s1 that tries a store that failed again at once."""
    return FrontierTracker(uri, "frontier", "s1", tmp_path / "spool", retry_after_s=0.0)
