"""Splits: types over Arrow, views without copies, bad input refused with rule and value."""

import hashlib
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from runtime_pruning.datasets import (
    DatasetInfo,
    HeldOutSplit,
    ImageDataset,
    PolicySplit,
    Split,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.errors import DataError

INFO = DatasetInfo("toy", ("cat", "dog"), (1, 2, 2))
# Image n holds the bytes 4n, 4n + 1, 4n + 2, 4n + 3.
IMAGES = np.arange(20, dtype=np.uint8).reshape(5, 1, 2, 2)
LABELS = [0, 1, 1, 0, 1]


def split_of(kind: type[Split] = TrainingSplit, first_id: int = 0) -> Split:
    return kind.from_arrays(INFO, IMAGES, LABELS, np.arange(5) + first_id)


def dataset() -> ImageDataset:
    kinds = (TrainingSplit, PolicySplit, ValidationSplit, TestSplit)
    return ImageDataset(INFO, *(split_of(kind, 10 * n) for n, kind in enumerate(kinds)))


def test_a_split_is_views_of_one_arrow_table() -> None:
    split = split_of(first_id=7)
    assert len(split) == 5
    assert split.table.column_names == ["id", "image", "label"]
    assert split.table["image"][1].as_py() == bytes([4, 5, 6, 7])
    assert split.ids_N.tolist() == [7, 8, 9, 10, 11]
    assert split.labels_N.tolist() == LABELS
    assert split.images_NCHW[2].tolist() == [[[8, 9], [10, 11]]]
    assert np.shares_memory(split.images_NCHW, IMAGES)


def test_a_view_cannot_be_written() -> None:
    split = split_of()
    for view in (split.images_NCHW, split.labels_N, split.ids_N):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1


def test_a_table_in_chunks_is_joined() -> None:
    table = split_of().table
    split = TrainingSplit(INFO, pa.concat_tables([table.slice(3), table.slice(0, 3)]))
    assert split.ids_N.tolist() == [3, 4, 0, 1, 2]
    assert split.images_NCHW[:, 0, 0, 0].tolist() == [12, 16, 0, 4, 8]


def test_head_shares_memory_and_keeps_the_type() -> None:
    split = split_of(PolicySplit)
    head = split.head(2)
    assert type(head) is PolicySplit
    assert head.ids_N.tolist() == [0, 1]
    assert np.shares_memory(head.images_NCHW, split.images_NCHW)
    assert len(split.head(99)) == 5


def test_take_follows_the_indices() -> None:
    taken = split_of(ValidationSplit).take([4, 0, 4])
    assert type(taken) is ValidationSplit
    assert taken.ids_N.tolist() == [4, 0, 4]
    assert taken.images_NCHW[:, 0, 1, 1].tolist() == [19, 3, 19]


def test_take_outside_the_split_is_refused() -> None:
    with pytest.raises(IndexError, match="5"):
        split_of().take([5])


def test_a_slice_pickles_its_own_rows_only() -> None:
    buffers: list[pickle.PickleBuffer] = []
    part = TrainingSplit(INFO, split_of(first_id=7).table.slice(1, 3))
    stream = pickle.dumps(part, protocol=5, buffer_callback=buffers.append)
    # Three images: ids 3 x 8 bytes, pixels 3 x 4, labels 3 x 8.
    assert [buffer.raw().nbytes for buffer in buffers] == [24, 12, 24]
    again = pickle.loads(stream, buffers=buffers)
    assert again.ids_N.tolist() == [8, 9, 10]
    assert again.images_NCHW[0].tolist() == [[[4, 5], [6, 7]]]
    assert np.shares_memory(again.images_NCHW, IMAGES)


def test_the_content_hash_is_that_of_the_bytes_in_order() -> None:
    two = TrainingSplit.from_arrays(INFO, IMAGES[:2], [0, 1], [7, 8])
    written = hashlib.sha256(b'[1, ["cat", "dog"], [1, 2, 2]]')
    for column in ([7, 8], [0, 1]):
        written.update(b"".join(value.to_bytes(8, "little") for value in column))
    written.update(bytes(range(8)))
    assert two.content_hash() == written.hexdigest()[:32]
    same = TrainingSplit.from_arrays(INFO, IMAGES, LABELS, np.arange(5) + 7).head(2)
    assert same.content_hash() == two.content_hash()


@pytest.mark.parametrize(
    "change",
    [
        {"images": IMAGES ^ 1},
        {"images": IMAGES[::-1]},
        {"labels": [0, 1, 1, 0, 0]},
        {"ids": np.arange(5) + 1},
        {"info": DatasetInfo("toy", ("dog", "cat"), (1, 2, 2))},
        {
            "info": DatasetInfo("toy", ("cat", "dog"), (2, 2, 1)),
            "images": IMAGES.reshape(5, 2, 2, 1),
        },
    ],
)
def test_any_change_of_the_content_changes_its_hash(change: dict[str, Any]) -> None:
    same = {"info": INFO, "images": IMAGES, "labels": LABELS, "ids": np.arange(5)}
    changed = TrainingSplit.from_arrays(**{**same, **change}).content_hash()
    assert changed != TrainingSplit.from_arrays(**same).content_hash()


def test_name_process_and_memory_do_not_change_the_content_hash() -> None:
    split = split_of()
    renamed = DatasetInfo("toy2", INFO.classes, INFO.image_shape)
    copies = [
        pickle.loads(pickle.dumps(split)),
        split.take(np.arange(5)),
        TrainingSplit.from_arrays(renamed, IMAGES, LABELS),
    ]
    assert {copy.content_hash() for copy in copies} == {split.content_hash()}


def test_a_datasets_content_hash_knows_each_split() -> None:
    whole = dataset()
    hashes = {whole.content_hash(), dataset().content_hash()}
    assert len(hashes) == 1
    hashes.add(replace(whole, test=whole.test.head(4)).content_hash())
    hashes.add(replace(whole, training=whole.training.head(4)).content_hash())
    assert len(hashes) == 3


def test_validation_and_test_are_held_out_and_the_others_are_not() -> None:
    held_out = [isinstance(split, HeldOutSplit) for split in dataset().splits]
    assert held_out == [False, False, True, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, r"must be uint8 .* got float32"),
        ({"images": IMAGES.reshape(5, 4, 1, 1)}, r"got uint8 of shape \(5, 4, 1, 1\)"),
        ({"images": np.uint8(3)}, r"shape \(\)"),
        ({"labels": [0, 1, 2, 0, 1]}, r"in \[0, 1\], but got 2"),
        ({"labels": [0, -1, 1, 0, 1]}, r"in \[0, 1\], but got -1"),
        ({"labels": [0.5] * 5}, "`labels` must be integers"),
        ({"labels": [0, 1]}, r"shape \(5,\), but got int64 of shape \(2,\)"),
        ({"ids": [1, 2]}, "`ids` must be integers"),
        ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, "at least one image"),
    ],
)
def test_arrays_of_another_form_are_refused(change: dict[str, object], message: str) -> None:
    arrays = {"images": IMAGES, "labels": LABELS} | change
    with pytest.raises(DataError, match=message):
        TrainingSplit.from_arrays(INFO, **arrays)  # type: ignore[arg-type]


def test_a_table_of_another_form_is_refused() -> None:
    with pytest.raises(DataError, match=r"columns id: int64, image: .*but got id: int64, label"):
        TrainingSplit(INFO, split_of().table.drop_columns("image"))


def test_a_table_with_nulls_is_refused() -> None:
    table = split_of().table.set_column(2, "label", pa.array([0, 1, None, 0, 1]))
    with pytest.raises(DataError, match=r"`null_count == 0` must hold, but got 1"):
        TrainingSplit(INFO, table)


@pytest.mark.parametrize("n", [0, -1])
def test_an_empty_head_is_refused(n: int) -> None:
    with pytest.raises(DataError, match=f"`n >= 1` must hold.*{n}"):
        split_of().head(n)


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (("cat",), (1, 2, 2), "two or more"),
        (("cat", "cat"), (1, 2, 2), "all different"),
        (("cat", "dog"), (2, 2), "`image_shape`"),
        (("cat", "dog"), (1, 0, 2), "each >= 1"),
    ],
)
def test_an_impossible_dataset_is_refused(
    classes: tuple[str, ...], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        DatasetInfo("toy", classes, shape)


def test_an_image_in_two_splits_is_refused() -> None:
    whole = dataset()
    with pytest.raises(DataError, match=r"these ids are: \[10, 11, 12, 13, 14\]"):
        ImageDataset(INFO, whole.training, whole.policy, split_of(ValidationSplit, 10), whole.test)


def test_splits_in_the_wrong_place_are_refused() -> None:
    whole = dataset()
    with pytest.raises(DataError, match=r"Expected a ValidationSplit, but got TestSplit"):
        ImageDataset(INFO, whole.training, whole.policy, whole.test, whole.test)


def test_a_split_of_another_dataset_is_refused() -> None:
    whole = dataset()
    other = DatasetInfo("other", INFO.classes, INFO.image_shape)
    foreign = TestSplit.from_arrays(other, IMAGES, LABELS)
    with pytest.raises(DataError, match="'other'"):
        ImageDataset(INFO, whole.training, whole.policy, whole.validation, foreign)
