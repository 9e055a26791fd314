"""What was made once is mapped the next time, and made again where that cannot be."""

from pathlib import Path

import pyarrow as pa
import pytest

from runtime_pruning.datasets.cache import cache_folder, cached_table, key_of

SCHEMA = pa.schema([("n", pa.int64())])


class Maker:
    """Makes a table of how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> pa.Table:
        self.asked += 1
        return pa.table({"n": [self.asked]}, SCHEMA)


def test_a_table_is_made_once(tmp_path: Path) -> None:
    make, path = Maker(), tmp_path / "new" / "table.arrow"
    tables = [cached_table(path, SCHEMA, make) for _ in range(3)]
    assert [table["n"].to_pylist() for table in tables] == [[1]] * 3
    assert make.asked == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kept", [b"", b"no Arrow file", None])
def test_what_cannot_be_read_is_made_again(kept: bytes | None, tmp_path: Path) -> None:
    make, path = Maker(), tmp_path / "table.arrow"
    cached_table(path, SCHEMA, make)
    path.write_bytes(path.read_bytes()[:100] if kept is None else kept)
    assert cached_table(path, SCHEMA, make)["n"].to_pylist() == [2]
    assert cached_table(path, SCHEMA, make)["n"].to_pylist() == [2]


def test_a_table_of_another_form_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    cached_table(
        path, pa.schema([("m", pa.int8())]), lambda: pa.table({"m": pa.array([1], pa.int8())})
    )
    assert cached_table(path, SCHEMA, Maker()).schema == SCHEMA


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    make = Maker()
    for n in (1, 2):
        assert cached_table(tmp_path / "file" / "x.arrow", SCHEMA, make)["n"].to_pylist() == [n]


def test_the_key_is_of_the_content(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (key_of(tmp_path / name) for name in "abc")
    assert a == b != c


def test_the_user_chooses_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("RUNTIME_PRUNING_CACHE", raising=False)
    assert cache_folder() == Path("/somewhere/runtime-pruning")
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
