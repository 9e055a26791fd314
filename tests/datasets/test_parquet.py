"""The user's own photographs in Parquet: parts by name, labels, and each fault by name."""

import io
import json
import os
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
from runtime_pruning.datasets.parquet import parquet_files
from runtime_pruning.errors import DataError
from runtime_pruning.testing.datasets import DatasetContract

CLASSES = ("background", "female", "male")


def load(folder: Path) -> ImageDataset:
    return datasets.load("image-folder", folder, {"image_size": 16})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", str(folder))
    return folder


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


class TestParquet(DatasetContract):
    dataset_name = "image-folder"

    def load(self) -> ImageDataset:
        assert self.data_dir is not None
        return load(self.data_dir)

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


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([b"x"] * 3, [0, 1, -1], r"train part must be in \[0, 2\], but got -1"),
        ([b"x"] * 3, [0, 1, 3], r"train part must be in \[0, 2\], but got 3"),
        ([b"x"] * 3, [0, 1, None], "no empty label, but got 1"),
        ([b"x", None, b"x"], [0, 1, 2], "no empty image, but got 1"),
        ([b"x"] * 3, [0, 1, 1], r"lacks \['male'\] and adds \[\]"),
        ([b"x"] * 12, [0, 1, 2] * 4, r"12 of 12 images .*Row 0 of .*train\.parquet' \(cannot"),
        ([b"x"] * 3, [1, 2, 3], r"in \[0, 2\], but got 3; they must count from 0"),
        ([b"x"] * 3, [0, 1, 2**40], "stay below 100,000, but got 1099511627776"),
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


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["train.parquet", "val.parquet", "test.parquet"],
        ["Train-0-of-1-beef.parquet", "VALIDATION.PARQUET", "testing_1.parquet"],
        ["data/training.parquet", "data/dev.parquet", "data/Test.parquet"],
        ["train/0000.parquet", "validation/0000.parquet", "test/0000.parquet"],
        ["train.parquet/part-0.parquet", "val.parquet/part-0.parquet", "Test.parquet/x.parquet"],
    ],
)
def test_files_and_folders_of_parts_go_by_any_name(names: list[str], tmp_path: Path) -> None:
    touch(tmp_path, *names, "labels.csv", "extra.parquet", ".hidden.parquet")
    found = parquet_files(tmp_path)
    expected = dict(zip(("train", "validation", "test"), names, strict=True))
    assert found == {part: [tmp_path / name] for part, name in expected.items()}


def test_a_folder_as_spark_writes_it_is_read_in_its_order(tmp_path: Path) -> None:
    parts = [f"train.parquet/part-0000{n}-beef.snappy.parquet" for n in (1, 0)]
    marks = ["train.parquet/_SUCCESS", "train.parquet/._SUCCESS.crc", "train.parquet/_metadata"]
    touch(tmp_path, *parts, *marks)
    assert parquet_files(tmp_path)["train"] == [tmp_path / parts[1], tmp_path / parts[0]]


def test_images_in_a_folder_of_sparks_are_read(
    tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    for n in range(2):
        images = [jpeg(photograph(row % 2, 10 * n + row)) for row in range(6)]
        write_parquet(
            tmp_path / "train.parquet" / f"part-{n}.parquet", images, [0, 1] * 3, plain=True
        )
    found = load(tmp_path)
    assert sum(len(split) for split in found.splits) == 12
    brightest_N = found.training.images_NCHW[:].mean((2, 3)).argmax(1)
    assert brightest_N.tolist() == found.training.labels_N.tolist()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.parquet", "Train.parquet"], r"Only one of \['Train', 'train'\]"),
        (["train.parquet", "val.parquet", "valid.parquet"], r"Only one of \['val', 'valid'\]"),
        (["train.parquet", "eval.parquet"], r"'eval.parquet' must begin with"),
        (["train.parquet/label=0/part-0.parquet"], r"side by side, but holds \['label=0'\]"),
        (["train.parquet/_SUCCESS"], "side by side, but holds none"),
    ],
)
def test_files_of_an_unclear_part_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        parquet_files(touch(tmp_path, *names))


def test_folders_of_images_are_no_parquet(tmp_path: Path) -> None:
    assert parquet_files(touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "notes.parquet")) == {}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_parts_is_named(
    link: Callable[[Path, Path], None], tmp_path: Path, cache: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [b"x"] * 3, [0, 1, 2])
    link(tmp_path / "train.parquet", tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"train\.parquet' and .*test\.parquet' are one file"):
        load(tmp_path)
    assert not (cache / "unpacked").exists()


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    os.symlink("nowhere", tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet' must be a whole .* No such file"):
        load(tmp_path)


def test_a_damaged_file_is_named_wherever_the_damage_is(tmp_path: Path) -> None:
    images = [np.random.default_rng(row).bytes(300) for row in range(15)]
    whole = write_parquet(tmp_path / "train.parquet", images, [0, 1, 2] * 5).read_bytes()
    for start in range(4, len(whole) - 60, len(whole) // 20):
        damaged = bytearray(whole)
        damaged[start : start + 60] = bytes(byte ^ 255 for byte in whole[start : start + 60])
        (tmp_path / "train.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"train\.parquet'"):  # the images are none, at last
            load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2**40], "count the classes from 0 and stay below 100,000, but got 1099511627776"),
        ([0, 1, 100_000], "stay below 100,000, but got 100000"),
        ([1, 2, 3], "Labels must count from 0, but the lowest is 1"),
        ([0, 2, 2], r"must hold the 3 classes of the dataset, but lacks \['1'\]"),
        ([-1, -1, -1], r"in \[0, 0\], but got -1"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(
    labels: list[int], message: str, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [b"x"] * 3, labels, plain=True)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_an_unsigned_label_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    labels = pa.array([0, 1, 2**64 - 1], pa.uint64())
    pq.write_table(pa.table({"image": [b"x"] * 3, "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="but got 18446744073709551615"):
        load(tmp_path)


@pytest.mark.parametrize("names", [["a", 1, None], "abc", {"0": "a"}])
def test_class_names_of_another_form_are_passed_over(
    names: Any, tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    images = [jpeg(photograph(row % 3, row)) for row in range(12)]
    write_parquet(tmp_path / "train.parquet", images, [0, 1, 2] * 4, names=names)
    assert load(tmp_path).info.classes == ("0", "1", "2")


def test_class_names_that_no_text_can_hold_can_be_printed(
    tmp_path: Path, photograph: Callable[..., Image.Image]
) -> None:
    images = [jpeg(photograph(row % 3, row)) for row in range(12)]
    names = ["$\\frac{$", "\ud800", "b\nc"]
    write_parquet(tmp_path / "train.parquet", images, [0, 1, 2] * 4, names=names)
    found = load(tmp_path)
    assert found.info.classes == ("$\\frac{$", "\\ud800", "b\nc")
    assert len(found.content_hash()) == 32
