"""The user's own photographs in class folders: splits, settings, and each fault by name."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime_pruning import datasets
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.testing.datasets import DatasetContract

Write = Callable[..., Path]
CLASSES = ("background", "female", "male")
SMALL = {"image_size": 16}


def load(folder: Path, **settings: Any) -> ImageDataset:
    return datasets.load("image-folder", folder, {**SMALL, **settings})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, write_photographs: Write) -> Path:
    return write_photographs(tmp_path_factory.mktemp("faces"), dict.fromkeys(CLASSES, 20))


class TestClassFolders(DatasetContract):
    dataset_name = "image-folder"

    def load(self) -> ImageDataset:
        assert self.data_dir is not None
        return load(self.data_dir)

    @pytest.fixture(autouse=True)
    def place(self, faces: Path) -> None:
        type(self).data_dir = faces

    def test_splits_are_cut_by_class(self) -> None:
        counts = [np.bincount(split.labels_N).tolist() for split in self.dataset.splits]
        assert counts == [[12] * 3, [2] * 3, [2] * 3, [4] * 3]
        assert self.dataset.info.classes == CLASSES

    def test_pixels_are_those_of_the_file_that_the_id_counts(self) -> None:
        assert self.data_dir is not None
        files = sorted(self.data_dir.glob("*/*.jpg"))
        for split in self.dataset.splits:
            for place in (0, len(split) - 1):
                file = files[split.ids_N[place]]
                assert file.parent.name == CLASSES[split.labels_N[place]]
                with Image.open(file) as image:
                    whole = image.convert("RGB").resize((24, 18), Image.Resampling.BILINEAR)
                expected = np.asarray(whole.crop((4, 1, 20, 17))).transpose(2, 0, 1)
                assert np.array_equal(split.images_NCHW[[place]][0], expected)

    def test_workers_get_addresses_and_no_pixels(self) -> None:
        decoded = sum(len(split) for split in self.dataset.splits) * 3 * 16 * 16
        assert len(pickle.dumps(self.dataset)) < decoded / 4

    def test_head_and_take_read_nothing(self) -> None:
        training = self.dataset.training
        some = training.take([5, 0]).head(1)
        assert some.ids_N.tolist() == [training.ids_N[5]]
        assert np.array_equal(some.images_NCHW[:], training.images_NCHW[[5]])


def test_folders_of_their_own_are_the_splits(tmp_path: Path, write_photographs: Write) -> None:
    folders = {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 1, "test/a": 1, "test/b": 3}
    found = load(write_photographs(tmp_path, folders))
    # Listed by part and class: rows 0 to 7 train, 8 to 10 val, 11 to 14 test.
    assert [sorted(split.ids_N.tolist()) for split in found.splits[2:]] == [
        [8, 9, 10], [11, 12, 13, 14],
    ]  # fmt: skip
    assert [len(split) for split in found.splits] == [6, 2, 3, 4]
    assert found.test.labels_N.tolist().count(1) == 3


def test_what_is_no_image_is_passed_over(tmp_path: Path, write_photographs: Write) -> None:
    write_photographs(tmp_path, {"a": 8, "b/inner": 8})
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / ".hidden.jpg").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    found = load(tmp_path)
    assert found.info.classes == ("a", "b")
    assert sum(len(split) for split in found.splits) == 16


def test_the_size_is_a_setting_and_part_of_the_content(
    tmp_path: Path, write_photographs: Write
) -> None:
    folder = write_photographs(tmp_path, {"a": 5, "b": 5})
    sizes = [load(folder), load(folder, image_size=24), load(folder, fit="stretch")]
    assert [each.info.image_shape for each in sizes] == [(3, 16, 16), (3, 24, 24), (3, 16, 16)]
    assert len({each.content_hash() for each in sizes}) == 3
    assert load(folder).content_hash() == sizes[0].content_hash()
    assert datasets.load("image-folder", folder).info.image_shape == (3, 224, 224)
    (folder / "a" / "000.jpg").rename(folder / "a" / "zzz.jpg")
    assert load(folder).content_hash() != sizes[0].content_hash()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "`image_size >= 1` must hold, but got 0"),
        ({"image_siz": 8}, "no setting 'image_siz'. Did you mean 'image_size'?"),
        ({"fit": "squeeze"}, "fit: .*'crop' or 'stretch'"),
    ],
)
def test_bad_settings_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, write_photographs: Write
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write_photographs(tmp_path, {"a": 5, "b": 5}), **settings)


def test_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_PRUNING_DATA", raising=False)
    with pytest.raises(DataError, match=r"'image-folder' needs a folder.*RUNTIME_PRUNING_DATA"):
        datasets.load("image-folder")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "must hold a folder of images per class: none found"),
        ({"cats": 5}, r"must hold two classes or more, but holds only \['cats'\]"),
        ({"cats": 5, "dogs": 0}, "dogs' must hold images, but holds none"),
        ({"cats": 5, "dogs": 3}, "at least 4 images in the training part, .* 'dogs' has 3"),
        ({"val/cats": 5, "val/dogs": 5}, r"must hold `train` beside \['validation'\]"),
        (
            {"train/cats": 5, "train/dogs": 5, "test/cats": 5, "test/cows": 5},
            r"test' must hold the 2 classes .* lacks \['dogs'\] and adds \['cows'\]",
        ),
        (
            {"train/cats": 5, "train/dogs": 5, "val/cats": 5, "validation/cats": 5},
            r"Only one of \['val', 'validation'\] may be in",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(
    counts: dict[str, int], message: str, tmp_path: Path, write_photographs: Write
) -> None:
    with pytest.raises(DataError, match=message):
        load(write_photographs(tmp_path, counts))


def damage(folder: Path, *names: str) -> None:
    """Cut photographs in half: their headers stay whole."""
    for name in names:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])


def test_a_damaged_image_is_named_before_anything_starts(
    tmp_path: Path, write_photographs: Write
) -> None:
    folders = {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 2}
    folder = write_photographs(tmp_path, folders, (200, 150))
    damage(folder, "test/b/001.jpg")
    with pytest.raises(DataError, match=r"1 of 16 images .*test/b/001\.jpg' \(.*truncated.*skip`"):
        load(folder)


def test_damaged_images_are_left_out_by_choice_and_listed(
    tmp_path: Path, write_photographs: Write, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_photographs(tmp_path, {"a": 8, "b": 8}, (200, 150))
    whole = load(folder)
    damage(folder, "a/002.jpg", "b/007.jpg")
    (folder / "a" / "007.jpg").write_bytes(b"")
    found = load(folder, damaged="skip")
    ids = sorted(np.concatenate([split.ids_N for split in found.splits]).tolist())
    assert ids == [row for row in range(16) if row not in (2, 7, 15)]
    assert all(len(split.images_NCHW[:]) == len(split) for split in found.splits)
    assert found.content_hash() != whole.content_hash()
    assert "Left out: 3 of 16 images are damaged" in caplog.text
    (listed,) = (cache / "inspected").glob("*.txt")
    assert [line.split("': ")[0][-9:] for line in listed.read_text().splitlines()] == [
        "a/002.jpg", "a/007.jpg", "b/007.jpg",
    ]  # fmt: skip


def test_a_class_of_which_too_little_is_left_is_refused(
    tmp_path: Path, write_photographs: Write
) -> None:
    folder = write_photographs(tmp_path, {"a": 8, "b": 4}, (200, 150))
    damage(folder, "b/002.jpg")
    with pytest.raises(DataError, match=r"at least 4 images in the training part, .* 'b' has 3"):
        load(folder, damaged="skip")


def test_a_corrected_label_changes_the_content_hash_and_a_copy_does_not(
    tmp_path: Path, write_photographs: Write
) -> None:
    folder = write_photographs(tmp_path / "here", {"a": 8, "b": 8})
    before = load(folder).content_hash()
    shutil.copytree(folder, tmp_path / "there")  # with other dates
    os.utime(tmp_path / "there" / "a" / "000.jpg")
    assert load(tmp_path / "there").content_hash() == before
    (folder / "a" / "007.jpg").rename(folder / "b" / "0.jpg")
    assert load(folder).content_hash() != before


def test_a_pixel_that_changed_under_the_same_name_and_size_changes_the_content_hash(
    tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    for row in range(10):
        (tmp_path / "ab"[row % 2]).mkdir(exist_ok=True)
        photograph(row % 2, row).save(tmp_path / "ab"[row % 2] / f"{row}.bmp")
    before = load(tmp_path).content_hash()
    pixels = bytearray((tmp_path / "a" / "0.bmp").read_bytes())
    pixels[-1] ^= 1
    (tmp_path / "a" / "0.bmp").write_bytes(pixels)
    assert load(tmp_path).content_hash() != before


def test_copies_of_training_images_are_told(
    tmp_path: Path, write_photographs: Write, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_photographs(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    load(folder)
    assert caplog.text == ""
    for split, labels in (("train", "ab"), ("test", "b")):
        for label in labels:
            shutil.copy(folder / "train" / "a" / "001.jpg", folder / split / label / "copy.jpg")
    load(folder)
    # Which copies are policy or validation images is chance; those in the test folder stay there.
    assert re.search(r"1 of 5 test images are copies .*test/b/copy\.jpg' of .*train/", caplog.text)


def test_names_of_any_bytes_are_read_and_printed(
    tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    root = os.fsencode(tmp_path)
    for label, name in enumerate((b"$\\frac{$", b"caf\xe9", b"\xf0\x9f\x90\x88\n")):
        os.mkdir(root + b"/" + name)
        for row in range(4):
            path = os.fsdecode(root + b"/" + name + b"/\xff%d.jpg" % row)
            photograph(label, row).save(path)
    found = load(tmp_path)
    assert found.info.classes == ("$\\frac{$", "caf\\xe9", "\U0001f408\n")
    brightest_N = found.training.images_NCHW[:].mean((2, 3)).argmax(1)
    assert brightest_N.tolist() == found.training.labels_N.tolist()
    again: ImageDataset = pickle.loads(pickle.dumps(found))
    assert again.content_hash() == found.content_hash()
    (tmp_path / "caf\udce9" / "\udcff2.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 12 images") as caught:
        load(tmp_path)
    str(caught.value).encode("utf-8")
