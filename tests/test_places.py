"""Places at a path and on an S3 server behave alike."""

import pickle
import time
from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.places import Mirror, Place, PlaceError, in_folders


@pytest.fixture(params=["path", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, object_store: str) -> Place:
    """An empty place of each kind; workers get it pickled."""
    there = tmp_path / "there"
    named = {
        "path": str(there),
        "file": there.as_uri(),
        "s3": object_store.format(f"places/{tmp_path.parent.name}/{tmp_path.name}"),
    }
    opened: Place = pickle.loads(pickle.dumps(Place.at(named[request.param])))
    return opened


def test_what_is_written_is_read_and_deleted(place: Place) -> None:
    assert place.names() == []
    assert place.read_text("a.json") is None
    place.write_text("a.json", "ä")
    (place / "deep").write_text("b.txt", "b")
    assert place.names() == ["a.json", "deep"]
    assert place.read_text("a.json") == "ä"
    assert place.read_text("deep/b.txt") == "b"
    assert place.holds("deep/b.txt")
    assert not place.holds("deep")
    for name in ("deep", "a.json", "never"):
        place.delete(name)
    assert place.names() == []


def test_a_function_works_in_local_folders_and_its_files_come_to_the_place(place: Place) -> None:
    (place / "point").write_text("given.txt", "1")

    def work(folder: Path, none: Path | None, *, more: str) -> int:
        assert none is None
        (folder / "sub").mkdir()
        (folder / "sub" / "made.txt").write_text(more)
        return int((folder / "given.txt").read_text()) + 1

    assert in_folders(work, place / "point", None, more="x") == 2
    assert (place / "point").read_text("sub/made.txt") == "x"

    def add(one: Path, several: list[Path]) -> int:
        return sum(int((folder / "given.txt").read_text()) for folder in [one, *several])

    assert in_folders(add, place / "point", [place / "point"] * 2) == 3

    def fail(folder: Path) -> None:
        (folder / "before.txt").write_text("kept")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_folders(fail, place / "point")
    assert (place / "point").read_text("before.txt") == "kept"


def test_a_mirror_is_brought_up_to_date_without_what_is_left_out(
    place: Place, tmp_path: Path
) -> None:
    (place / "points/one").write_text("point.json", "{}")
    (place / "points/one/state").write_text("big", "0")
    mirror = Mirror(place, Path(place.path) if place.local else tmp_path / "mirror")
    folder = mirror.fetch(f"{place.path}/points/one", without=("state",))
    assert folder == mirror.folder / "points" / "one" == mirror.fetch("points/one")
    assert (folder / "point.json").read_text() == "{}"
    assert mirror.place_of(folder) == place / "points/one"


def test_a_copy_is_sent_while_it_is_written_to(object_store: str, tmp_path: Path) -> None:
    place = Place.at(object_store.format(f"sent/{tmp_path.name}"))
    place.write_text("old/a.txt", "a")
    place.write_text("other/b.txt", "b")
    with place.opened(only=["old", "none"], every_s=0.05) as folder:
        assert [path.name for path in folder.rglob("*.txt")] == ["a.txt"]
        (folder / "checkpoint.pt").write_text("1")
        (folder / ".unfinished").write_text("not yet")
        until = time.monotonic() + 20
        while not place.holds("checkpoint.pt") and time.monotonic() < until:
            time.sleep(0.05)
        assert place.read_text("checkpoint.pt") == "1"
        (folder / "checkpoint.pt").write_text("22")
    assert place.read_text("checkpoint.pt") == "22"
    assert not place.holds(".unfinished")
    with place.opened(sends=False) as folder:
        (folder / "mine").write_text("")
    assert not place.holds("mine")


def test_what_cannot_be_used_is_one_sentence_without_secrets(
    object_store: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"file://, s3:// or gs://, but got 'hdfs://host/x'"):
        Place.at("hdfs://host/x")
    with pytest.raises(ConfigError) as wrong:
        Place.at("s3://user:secret@bucket/x?endpoint=typo")
    absent = Place.at(object_store.format("x").replace("sweeps", "nobodys"))
    assert absent.address == "s3://nobodys/x"
    with pytest.raises(PlaceError, match="s3://nobodys/x cannot be used: ") as refused:
        absent.write_text("a", "a")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PlaceError, match=r"cannot be used: .*Not a directory"):
        Place.at(file / "below").write_text("a", "a")
    for error in (wrong, refused):
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
