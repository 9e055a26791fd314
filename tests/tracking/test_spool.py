"""Events wait in order, once each, with their files, until they are dropped."""

from pathlib import Path

from runtime_pruning.tracking.spool import Spool


def test_parents_come_first_then_what_happened_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    assert spool.waiting() == []
    for kind, key in (("sweep_end", "x"), ("point", "b"), ("trial", "t"), ("sweep", "s")):
        spool.put(kind, key, {})  # type: ignore[arg-type]
    kinds = [event.kind for event in spool.waiting()]
    assert kinds == ["sweep", "trial", "point", "sweep_end"]


def test_the_first_of_a_key_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt").write_text("two")
    first = spool.put("point", "p", {"value": 1}, {"file": tmp_path / "one.txt"})
    again = spool.put("point", "p", {"value": 2}, {"file": tmp_path / "two.txt"})
    assert again == first
    assert Spool(tmp_path).waiting() == [first]
    assert (spool.files(first) / "file").read_text() == "one"


def test_files_are_copies_and_folders_too(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "weights").write_text("w")
    spool = Spool(tmp_path / "spool")
    event = spool.put("point", "p", {}, {"bundle": bundle})
    (bundle / "weights").unlink()
    assert (spool.files(event) / "bundle" / "weights").read_text() == "w"
    spool.drop(event)
    assert list((tmp_path / "spool").iterdir()) == []


def test_half_written_events_do_not_count(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "2-point-p.partial").write_text('{"kind": "po')
    (tmp_path / "2-point-p").mkdir()
    (tmp_path / "2-point-p" / "left-over").write_text("by a crash")
    assert spool.waiting() == []
    event = spool.put("point", "p", {}, {"file": tmp_path / "2-point-p.partial"})
    assert [path.name for path in spool.files(event).iterdir()] == ["file"]


def test_refused_events_are_set_aside_with_their_files(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    spool = Spool(tmp_path / "spool")
    path = spool.reject(spool.put("point", "p", {}, {"file": tmp_path / "one.txt"}))
    assert path.exists()
    assert (path.parent / path.stem / "file").read_text() == "one"
    assert spool.waiting() == []
