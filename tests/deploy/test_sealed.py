"""Sealed facts: what was written comes back, or nothing does."""

from pathlib import Path

import pytest

from runtime_pruning.deploy.sealed import read_sealed, sha256_of, write_sealed
from runtime_pruning.errors import DataError


def read(path: Path) -> dict[str, object]:
    return read_sealed(path, schema=2, what="A bundle")


def test_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_sealed(path, {"schema": 2, "a": [1, 2.5, None]})
    assert read(path) == {"schema": 2, "a": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2.5", "2.6", "its checksum differs"),
        ("2.5", "25e-1", "its checksum differs"),
        ("2.5", "2.50", "its checksum differs"),
        ('"schema": 2', '"schema": 3', "`schema == 2` must hold, but got 3"),
        ("{", "[", "is damaged"),
    ],
)
def test_a_change_is_noticed(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "facts.json"
    write_sealed(path, {"schema": 2, "a": 2.5})
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"A bundle holds a none\.json"):
        read(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read"):
        sha256_of(tmp_path / "none.json")
