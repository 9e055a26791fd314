"""All pixels are looked at once: what is found, what is kept, and what is looked at again."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from runtime_pruning.datasets import inspection
from runtime_pruning.datasets.folder import list_files
from runtime_pruning.datasets.inspection import Inspection, inspect
from runtime_pruning.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def photographs(tmp_path: Path, write_photographs: Write) -> Path:
    return write_photographs(tmp_path / "data", {"a": 4, "b": 4}, (100, 80))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images that are decoded, by their bytes."""
    sizes: list[int] = []
    real = inspection.fault

    def counting(encoded: bytes) -> str | None:
        sizes.append(len(encoded))
        return real(encoded)

    monkeypatch.setattr(inspection, "fault", counting)
    return sizes


def look(photographs: Path) -> Inspection:
    return inspect(list_files(photographs), photographs.parent / "cache")


def test_each_image_is_hashed_and_the_faulty_are_told(photographs: Path) -> None:
    whole = (photographs / "a" / "002.jpg").read_bytes()
    (photographs / "a" / "002.jpg").write_bytes(whole[:-200])
    os.symlink("nowhere", photographs / "b" / "gone.jpg")
    os.mkfifo(photographs / "b" / "pipe.jpg")
    found = look(photographs)
    assert sorted(found.faults) == [2, 8, 9]
    assert "truncated" in found.faults[2]
    assert [found.faults[row] for row in (8, 9)] == [
        "No such file or directory", "it is no regular file",
    ]  # fmt: skip
    for row, path in enumerate(sorted(photographs.glob("*/0*.jpg"))):
        assert found.hash_NX[row].tobytes() == hashlib.sha256(path.read_bytes()).digest()


def test_the_second_time_nothing_is_looked_at(photographs: Path, looked_at: list[int]) -> None:
    first = look(photographs)
    assert len(looked_at) == 8
    second = look(photographs)
    assert len(looked_at) == 8
    assert np.array_equal(first.hash_NX, second.hash_NX)


def test_only_what_is_new_is_looked_at(photographs: Path, looked_at: list[int]) -> None:
    (photographs / "a" / "000.jpg").write_bytes(b"damaged")
    assert sorted(look(photographs).faults) == [0]
    assert look(photographs).file.read_text().count("000.jpg") == 1
    looked_at.clear()
    mended = (photographs / "a" / "001.jpg").read_bytes() + b"!"
    (photographs / "a" / "000.jpg").write_bytes(mended)
    (photographs / "b" / "003.jpg").rename(photographs / "b" / "new.jpg")
    (photographs / "b" / "000.jpg").unlink()
    found = look(photographs)
    assert found.faults == {}
    assert not found.file.exists()
    assert len(looked_at) == 2
    last = hashlib.sha256((photographs / "b" / "new.jpg").read_bytes()).digest()
    assert found.hash_NX[6].tobytes() == last


def test_another_date_is_another_image(photographs: Path, looked_at: list[int]) -> None:
    look(photographs)
    os.utime(photographs / "a" / "000.jpg", (1, 1))
    look(photographs)
    assert len(looked_at) == 9


@pytest.mark.parametrize("kept", [b"", b"no Arrow file"])
def test_a_broken_cache_is_made_anew(kept: bytes, photographs: Path, looked_at: list[int]) -> None:
    look(photographs)
    (file,) = (photographs.parent / "cache").glob("*.arrow")
    file.write_bytes(kept)
    look(photographs)
    look(photographs)
    assert len(looked_at) == 16


def test_what_another_version_found_is_looked_at_again(
    photographs: Path, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(photographs)
    other = pa.schema(list(inspection._SCHEMA)).with_metadata({"version": "another"})
    monkeypatch.setattr(inspection, "_SCHEMA", other)
    look(photographs)
    assert len(looked_at) == 16


def test_what_was_seen_before_an_interruption_is_kept(
    photographs: Path, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "CHUNK", 1)
    monkeypatch.setattr(inspection, "usable_cores", lambda: 1)
    counting = inspection.fault

    def interrupted(encoded: bytes) -> str | None:
        if len(looked_at) == 5:
            raise KeyboardInterrupt
        return counting(encoded)

    with monkeypatch.context() as patch:
        patch.setattr(inspection, "fault", interrupted)
        with pytest.raises(KeyboardInterrupt):
            look(photographs)
    look(photographs)
    assert len(looked_at) == 8


def test_a_cache_that_cannot_be_written_does_no_harm(photographs: Path) -> None:
    (photographs.parent / "cache").write_text("a file where the folder should be")
    (photographs / "a" / "000.jpg").write_bytes(b"damaged")
    assert sorted(look(photographs).faults) == [0]


def test_a_message_names_three_and_counts_all(
    photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    look(photographs).refuse()
    look(photographs).warn()
    assert caplog.text == ""
    for path in sorted(photographs.glob("*/*.jpg"))[:5]:
        path.write_bytes(b"damaged")
    found = look(photographs)
    with pytest.raises(DataError, match=r"5 of 8 images .*a/000.*a/001.*a/002.*\.\.\.") as caught:
        found.refuse()
    assert "003.jpg" not in str(caught.value)
    assert len(found.file.read_text().splitlines()) == 5
