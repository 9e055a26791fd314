"""Folders of images: links, loops, names of any bytes, and parts by any name.

Nothing is decoded here, so the files hold a few letters each.
"""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from runtime_pruning.datasets.folder import list_files
from runtime_pruning.datasets.listing import ImageListing
from runtime_pruning.errors import DataError


def write(root: Path, *files: str) -> Path:
    """Write files, each of which holds its own name."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def names(listing: ImageListing) -> list[str]:
    """Return all images in their order."""
    return [
        os.path.relpath(listing.encoded.open(row), listing.place)
        for row in range(len(listing.encoded))
    ]


def two_classes(root: Path, part: str = "") -> Path:
    return write(root, *(f"{part}/{label}/{n}.jpg".lstrip("/") for label in "ab" for n in range(3)))


def test_images_are_listed_by_class_and_name(tmp_path: Path) -> None:
    write(
        tmp_path, "b/2.jpg", "b/in/ner/1.PNG", "a/x.jpeg", "a/notes.txt", "a/.hidden/1.jpg", "c.jpg"
    )
    found = list_files(tmp_path)
    assert names(found) == ["a/x.jpeg", "b/2.jpg", "b/in/ner/1.PNG"]
    assert found.labels_N.tolist() == [0, 1, 1]
    assert found.part_N.tolist() == [0, 0, 0]
    assert found.classes == ("a", "b")


@pytest.mark.parametrize(
    "parts", ["Train Validation TEST", "TRAIN VAL Testing", "training dev test"]
)
def test_parts_go_by_any_name(parts: str, tmp_path: Path) -> None:
    for part in parts.split():
        two_classes(tmp_path, part)
    found = list_files(tmp_path)
    assert found.classes == ("a", "b")
    assert found.part_N.tolist() == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["Train/a/1.jpg", "train/a/1.jpg"], r"Only one of \['Train', 'train'\]"),
        (["a/Train/1.jpg", "a/Test/1.jpg", "b/1.jpg"], r"a' must hold .* holds parts of a dataset"),
        (["train/Train/a.jpg", "train/Test/a.jpg"], r"train' must hold classes or images, but"),
        (["Test/a/1.jpg", "val/a/1.jpg"], r"must hold `train` beside \['test', 'validation'\]"),
        (["bus/1.jpg", "train/1.jpg"], "train' must hold a folder of images per class: none found"),
        (["data-0.parquet"], r"Parquet files must begin with `train`, unlike \['data-0.parquet'\]"),
    ],
)
def test_parts_never_become_classes(files: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list_files(write(tmp_path, *files))


@pytest.mark.parametrize(
    ("link", "target"), [("a/self", "self"), ("a/here", "."), ("a/in/up", ".."), ("a/root", "..")]
)
def test_a_link_that_leads_back_is_not_followed(link: str, target: str, tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    (root / "a" / "in").mkdir()
    os.symlink(target, root / link)
    assert len(names(list_files(root))) == 6


def test_a_part_that_is_the_whole_folder_is_refused(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    os.symlink(".", root / "train")
    with pytest.raises(DataError, match=r"are one file: it must not be in two classes"):
        list_files(root)


def test_test_images_do_not_become_training_images_by_a_loop(tmp_path: Path) -> None:
    for part in ("train", "test"):
        two_classes(tmp_path, part)
    os.symlink("../..", tmp_path / "train" / "a" / "loop")
    found = list_files(tmp_path)
    assert len(names(found)) == 12
    assert names(found)[:3] == ["train/a/0.jpg", "train/a/1.jpg", "train/a/2.jpg"]


def test_images_may_lie_behind_links(tmp_path: Path) -> None:
    store = write(tmp_path / "store", "cats/1.jpg", "cats/2.jpg", "dog.jpg")
    (tmp_path / "data" / "dogs").mkdir(parents=True)
    os.symlink(store / "cats", tmp_path / "data" / "cats")
    os.symlink(store / "dog.jpg", tmp_path / "data" / "dogs" / "1.jpg")
    assert names(list_files(tmp_path / "data")) == ["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"]


def test_one_file_twice_in_a_class_is_one_image(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    os.symlink("0.jpg", root / "a" / "again.jpg")
    os.link(root / "a" / "1.jpg", root / "a" / "hard.jpg")
    os.symlink("../b", root / "b" / "me")
    found = list_files(root)
    assert len(names(found)) == len(found.stamps_N) == len(found.labels_N) == 6
    assert found.labels_N.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_parts_is_named(link: object, tmp_path: Path) -> None:
    for part in ("train", "test"):
        two_classes(tmp_path, part)
    link(tmp_path / "train/a/1.jpg", tmp_path / "test/a/copy.jpg")  # type: ignore[operator]
    with pytest.raises(
        DataError, match=r"train/a/1\.jpg' and '.*test/a/copy\.jpg' are one file: .*two parts"
    ):
        list_files(tmp_path)


def test_one_file_in_two_classes_is_named(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    os.symlink("../b", root / "a" / "more")
    with pytest.raises(
        DataError, match=r"a/more/0\.jpg' and '.*b/0\.jpg' .* two classes, .* 3 in all"
    ):
        list_files(root)


def test_a_part_that_is_a_link_to_another_is_refused(tmp_path: Path) -> None:
    two_classes(tmp_path, "train")
    os.symlink("train", tmp_path / "test")
    with pytest.raises(DataError, match=r"are one file: it must not be in two parts, .* 6 in all"):
        list_files(tmp_path)


def test_a_link_to_nowhere_is_listed_and_not_taken_for_another(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    os.symlink("nowhere", root / "a" / "gone.jpg")
    os.symlink("gone.jpg", root / "b" / "gone.jpg")
    assert len(names(list_files(root))) == 8


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    root = os.fsencode(two_classes(tmp_path))
    os.mkdir(root + b"/caf\xe9")
    with open(root + b"/caf\xe9/\xff 1.jpg", "w") as file:
        file.write("content")
    write(tmp_path, "$\\frac{$/1.jpg")
    found = list_files(tmp_path)
    assert found.classes == ("$\\frac{$", "a", "b", r"caf\xe9")
    last = len(found.encoded) - 1
    assert found.encoded.open(last).read_text() == "content"  # type: ignore[union-attr]
    assert found.encoded.name(last).encode("utf-8").endswith(rb"caf\udce9/\udcff 1.jpg'")


def test_a_stamp_changes_with_name_size_and_date(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    stamps = [list_files(root).stamps_N.to_pylist()]
    (root / "a/0.jpg").rename(root / "a/00.jpg")
    stamps.append(list_files(root).stamps_N.to_pylist())
    (root / "a/1.jpg").write_text("longer than its name")
    stamps.append(list_files(root).stamps_N.to_pylist())
    os.utime(root / "a/2.jpg", ns=(1, -1))
    stamps.append(list_files(root).stamps_N.to_pylist())
    changed = [
        [row for row in range(6) if before[row] != after[row]] for before, after in pairwise(stamps)
    ]
    assert changed == [[0], [1], [2]]
