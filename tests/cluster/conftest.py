"""The folder of cluster files, and how they are held against a schema."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The folder ``cluster/``."""
    return ROOT / "cluster"


@pytest.fixture(scope="session")
def ray_image() -> str:
    """The start of the public image's name that has the pinned Ray on the oldest Python."""
    return f"rayproject/ray:{version('ray')}-py311"


@pytest.fixture(scope="session")
def faults() -> Callable[[Any, Any], list[str]]:
    """Lists what a schema, or the distilled one of that name, says against a document."""

    def check(document: Any, schema: Any) -> list[str]:
        if isinstance(schema, str):
            schema = json.loads((SCHEMAS / f"{schema}.json").read_text())
        jsonschema.Draft7Validator.check_schema(schema)
        found = jsonschema.Draft7Validator(schema).iter_errors(document)
        return [f"{'/'.join(map(str, fault.path))}: {fault.message}" for fault in found]

    return check


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Any]:
    """Reads a YAML file."""
    return lambda path: yaml.safe_load(path.read_text())
