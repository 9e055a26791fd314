"""Names of parts: recognised in any case, never taken for classes, refused where unclear."""

import pytest

from runtime_pruning.datasets.parts import file_part, part_folders, part_of
from runtime_pruning.errors import DataError


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (
            "train Train TRAIN training Training_Set train-images trainset TrainData train2017",
            "train",
        ),
        ("val VAL valid Validation validation_set val2017 dev valset", "validation"),
        ("test TEST testing Testing test_images testset Test-Data test_1", "test"),
    ],
)
def test_a_part_has_many_names(names: str, part: str) -> None:
    assert {part_of(name) for name in names.split()} == {part}


@pytest.mark.parametrize(
    "name",
    ["cats", "test_tube", "train_station", "contest", "trainer", "trainval", "eval", "set", "7"],
)
def test_other_names_mean_no_part(name: str) -> None:
    assert part_of(name) is None


def test_parts_are_found_whatever_their_case() -> None:
    found = part_folders(["VAL", "Train", "annotations", "testing"], "here")
    assert found == {"train": "Train", "validation": "VAL", "test": "testing"}
    assert list(found) == ["train", "validation", "test"]


@pytest.mark.parametrize("names", [["cats", "dogs"], ["test_tube", "bottle"], []])
def test_classes_are_no_parts(names: list[str]) -> None:
    assert part_folders(names, "here") == {}


def test_more_folders_of_a_part_that_is_there_are_passed_over() -> None:
    assert part_folders(["train", "test", "test_labels"], "here") == {
        "train": "train",
        "test": "test",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "Train"], r"Only one of \['Train', 'train'\] may be in here: .* its train part"),
        (["train", "val", "validation"], r"Only one of \['val', 'validation'\]"),
        (["train2014", "train2017"], r"Only one of"),
        (["train", "test_hard"], r"here holds \['test_hard'\], which read like parts"),
        (["train_v2_old", "test_v2_old"], r"holds \['test_v2_old', 'train_v2_old'\]"),
        (["train_station", "test_tube"], "Classes of such names must lie below `train`"),
        (["trainval", "cats", "dogs"], r"holds \['trainval'\]"),
        (["Train", "eval"], r"holds \['eval'\]"),
        (["trainval", "test"], r"holds \['trainval'\]"),
    ],
)
def test_what_may_be_a_part_is_refused_by_name(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        part_folders(names, "here")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train.parquet", "train"),
        ("Train-00000-of-00002-a1b2c3.parquet", "train"),
        ("TRAINING.parquet", "train"),
        ("validation-00000.parquet", "validation"),
        ("test_cats.parquet", "test"),
        ("trainer.parquet", None),
        ("labels-train.parquet", None),
        ("00000.parquet", None),
    ],
)
def test_a_files_first_word_says_its_part(name: str, part: str | None) -> None:
    assert file_part(name) == part


def test_a_file_of_an_unclear_part_is_refused() -> None:
    with pytest.raises(DataError, match=r"'eval-0\.parquet' must begin with `train`"):
        file_part("eval-0.parquet")
