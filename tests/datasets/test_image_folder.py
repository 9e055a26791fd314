"""The user's own photographs: class folders or Parquet, and each fault by name."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


class FolderContract(DatasetContract):
    dataset_name = "image-folder"

    def load(self) -> ImageDataset:
        assert self.data_dir is not None
        return load(self.data_dir)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, write_photographs: Write) -> Path:
    return write_photographs(tmp_path_factory.mktemp("faces"), dict.fromkeys(CLASSES, 20))


class TestClassFolders(FolderContract):
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


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def write_parquet(path: Path, images: list[Any], labels: list[Any], **options: Any) -> Path:
    """Write a file in the form of the hub's: a struct of bytes and path, row groups of five."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [None if each is None else {"bytes": each, "path": None} for each in images]
    table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels, pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    names = json.dumps({"info": {"features": {"label": {"names": options.get("names", CLASSES)}}}})
    metadata = {} if options.get("plain") else {"huggingface": names}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=5)
    return path


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, photograph: Callable[..., Image.Image]) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    files = {"train-00000-of-00002": 33, "train-00001-of-00002": 27, "validation-00000": 12}
    for number, (name, count) in enumerate(files.items()):
        labels = [row % 3 for row in range(count)]
        images = [jpeg(photograph(k, 100 * number + row)) for row, k in enumerate(labels)]
        write_parquet(folder / "data" / f"{name}.parquet", images, labels)
    return folder


class TestParquet(FolderContract):
    @pytest.fixture(autouse=True)
    def place(self, hub: Path) -> None:
        type(self).data_dir = hub

    def test_the_hubs_validation_files_are_halved(self) -> None:
        counts = [np.bincount(split.labels_N).tolist() for split in self.dataset.splits]
        assert counts == [[18] * 3, [2] * 3, [2] * 3, [2] * 3]
        assert self.dataset.info.classes == CLASSES

    def test_an_image_is_found_in_any_file_and_row_group(self) -> None:
        # A photograph's class is its brightest colour.
        for split in self.dataset.splits:
            brightest_N = split.images_NCHW[:].mean((2, 3)).argmax(1)
            assert brightest_N.tolist() == split.labels_N.tolist()

    def test_files_are_unpacked_once(self, cache: Path) -> None:
        unpacked = sorted((cache / "unpacked").glob("*")) if self.load() else []
        assert [path.name.rsplit("-", 1)[0] for path in unpacked] == [
            "train-00000-of-00002", "train-00001-of-00002", "validation-00000",
        ]  # fmt: skip
        before = [path.stat().st_mtime_ns for path in unpacked]
        self.load()
        assert [path.stat().st_mtime_ns for path in unpacked] == before

    def test_a_machine_without_the_unpacked_files_makes_them(self, cache: Path) -> None:
        dataset = self.load()
        stream = pickle.dumps(dataset)
        for path in (cache / "unpacked").iterdir():
            path.unlink()
        again: ImageDataset = pickle.loads(stream)
        assert np.array_equal(again.policy.images_NCHW[:], dataset.policy.images_NCHW[:])


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
    assert len({each.info.content for each in sizes}) == 3
    assert load(folder).info == sizes[0].info
    assert datasets.load("image-folder", folder).info.image_shape == (3, 224, 224)
    (folder / "a" / "000.jpg").rename(folder / "a" / "zzz.jpg")
    assert load(folder).info.content != sizes[0].info.content


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


def test_a_dataset_without_settings_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'digits' has no such setting: .*'image_size'"):
        datasets.load("digits", None, {"image_size": 8})


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
            "Only one of .*val.* may be there",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(
    counts: dict[str, int], message: str, tmp_path: Path, write_photographs: Write
) -> None:
    with pytest.raises(DataError, match=message):
        load(write_photographs(tmp_path, counts))


def test_an_unreadable_file_is_named_before_anything_starts(
    tmp_path: Path, write_photographs: Write
) -> None:
    folder = write_photographs(tmp_path, {"a": 5, "b": 5})
    (folder / "b" / "003.jpg").write_bytes(b"I am no photograph")
    with pytest.raises(DataError, match=r"b/003\.jpg' must be an image \(JPEG, PNG"):
        load(folder)


def test_a_file_that_ends_early_is_named_when_it_is_read(
    tmp_path: Path, write_photographs: Write
) -> None:
    folder = write_photographs(tmp_path, {"a": 5, "b": 5}, (200, 150))
    whole = (folder / "a" / "002.jpg").read_bytes()
    (folder / "a" / "002.jpg").write_bytes(whole[: len(whole) // 2])
    whole_splits = [split.images_NCHW for split in load(folder).splits]
    with pytest.raises(DataError, match=r"a/002\.jpg' must be an image"):
        np.concatenate([images[:] for images in whole_splits])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([b"x"] * 3, [0, 1, -1], r"train part must be in \[0, 2\], but got -1"),
        ([b"x"] * 3, [0, 1, 3], r"train part must be in \[0, 2\], but got 3"),
        ([b"x"] * 3, [0, 1, None], "no empty label, but got 1"),
        ([b"x", None, b"x"], [0, 1, 2], "no empty image, but got 1"),
        ([b"x"] * 3, [0, 1, 1], r"lacks \['male'\] and adds \[\]"),
        ([b"x"] * 12, [0, 1, 2] * 4, r"Row 0 of .*train\.parquet' must be an image"),
        ([], [], "at least one row"),
    ],
)
def test_parquet_that_cannot_be_used_is_named(
    images: list[bytes | None], labels: list[int | None], message: str, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", images, labels)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_labels_are_looked_at_before_hours_of_unpacking(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [b"x"] * 12, [0, 1, 2] * 4)
    write_parquet(tmp_path / "test.parquet", [b"x"] * 3, [-1] * 3)
    with pytest.raises(DataError, match=r"test part must be in .* without labels must lie else"):
        load(tmp_path)
    assert not (cache / "unpacked").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["x"], "label": [1]}, "'image' of .* binary `bytes`, but is string"),
        ({"image": [b"x"], "label": ["1"]}, "'label' of .* an integer, but is string"),
        ({"label": [1]}, r"must have a column 'image', but has \['label'\]"),
    ],
)
def test_other_columns_are_refused(
    columns: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_plain_columns_have_classes_by_number(
    tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    images = [jpeg(photograph(row % 2, row)) for row in range(10)]
    table = pa.table({"image": images, "label": [row % 2 for row in range(10)]})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=3)
    found = load(tmp_path)
    assert found.info.classes == ("0", "1")
    brightest_N = found.training.images_NCHW[:].mean((2, 3)).argmax(1)
    assert brightest_N.tolist() == found.training.labels_N.tolist()
