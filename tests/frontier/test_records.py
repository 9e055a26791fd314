"""Records keep what they are given, in order of image, and refuse what cannot be true."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from runtime_pruning.errors import DataError
from runtime_pruning.frontier import Provenance, Record, derive, read_record, write_record
from runtime_pruning.frontier.records import AnswerKind, kept_classes


def arrays(**changes: Any) -> dict[str, Any]:
    return {
        "split": "validation",
        "image_ids_N": np.array([7, 3, 5]),
        "labels_N": np.array([1, 0, 2]),
        "predictions_N": np.array([1, 2, 2]),
        "losses_N": np.array([0.5, 2.0, 0.25], dtype=np.float32),
        "channels_NL": np.array([[8, 16], [4, 8], [8, 8]]),
        "executed_macs_N": np.array([300, 100, 200]),
        **changes,
    }


# Of the images 7, 3 and 5.
PROBABILITIES = np.array([[0.2, 0.7, 0.1], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8]])


def answers(**changes: Any) -> dict[str, Any]:
    return {
        "answers": AnswerKind(num_classes=3, content="c0ffee"),
        "log_probabilities_NA": np.log(PROBABILITIES),
        "answer_classes_NA": np.tile(np.arange(3), (3, 1)),
        **changes,
    }


def test_rows_are_ordered_by_image() -> None:
    record = Record.from_arrays(**arrays())
    assert record.image_ids_N.tolist() == [3, 5, 7]
    assert record.labels_N.tolist() == [0, 2, 1]
    assert record.predictions_N.tolist() == [2, 2, 1]
    assert record.losses_N.tolist() == [2.0, 0.25, 0.5]
    assert record.channels_NL.tolist() == [[4, 8], [8, 8], [8, 16]]
    assert record.executed_macs_N.tolist() == [100, 200, 300]
    assert record.correct_N.tolist() == [False, True, True]
    assert (len(record), record.num_sites, record.split) == (3, 2, "validation")


def test_tensors_are_accepted() -> None:
    given = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays().items()
    }
    assert Record.from_arrays(**given) == Record.from_arrays(**arrays())


def test_a_file_gives_the_record_back(tmp_path: Path) -> None:
    losses = np.array([0.5, np.nan, 0.25], dtype=np.float32)
    record = Record.from_arrays(**arrays(split="test", losses_N=losses))
    write_record(record, tmp_path / "deep" / "record.parquet")
    back = read_record(tmp_path / "deep" / "record.parquet")
    assert back == record
    assert back.table.schema.equals(record.table.schema)
    assert back.table.schema.metadata == record.table.schema.metadata
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["record.parquet"]


def test_sources_are_kept_where_they_are_known(tmp_path: Path) -> None:
    assert Record.from_arrays(**arrays()).sources_N.tolist() == [3, 5, 7]  # each image its own
    write_record(Record.from_arrays(**arrays(sources_N=[11, 12, 11])), tmp_path / "record.parquet")
    back = read_record(tmp_path / "record.parquet")
    assert back.sources_N.tolist() == [12, 11, 11]  # of the images 3, 5 and 7
    assert back != Record.from_arrays(**arrays())
    with pytest.raises(DataError, match="equally long"):
        Record.from_arrays(**arrays(sources_N=[11, 12]))


def test_unequal_records_are_unequal() -> None:
    record = Record.from_arrays(**arrays())
    assert record != Record.from_arrays(**arrays(split="test"))
    assert record != Record.from_arrays(**arrays(channels_NL=[[8, 16], [4, 8], [8, 7]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids_N": np.array([7, 3, 3])}, "each once"),
        ({"labels_N": np.array([1, 0])}, "equally long"),
        ({"labels_N": np.array([1.5, 0, 2])}, "`labels_N` must hold whole numbers"),
        ({"channels_NL": np.array([8, 4, 8])}, "2 dimension"),
        ({"channels_NL": np.zeros((3, 0), dtype=np.int64)}, "at least one site"),
        ({"channels_NL": [[8, 16], [4, 8], [8, 40_000]]}, r"\[0, 32767\]"),
        ({"channels_NL": [[8, 16], [4, 8], [8, -1]]}, r"\[0, 32767\]"),
        ({"executed_macs_N": np.array([300, -1, 200])}, ">= 0, but got -1"),
        ({"split": "training"}, "but got 'training'"),
        ({**answers(), "log_probabilities_NA": np.log(PROBABILITIES * 0.9)}, "must sum to 1"),
        ({**answers(), "answer_classes_NA": [[0, 1, 3]] * 3}, r"classes in \[0, 3\)"),
        ({**answers(), "answer_classes_NA": [[0, 1, 1]] * 3}, "names a class twice"),
        ({**answers(), "predictions_N": np.array([0, 2, 2])}, "must be the likeliest"),
        ({**answers(), "log_probabilities_NA": np.log(PROBABILITIES[:2])}, "equally long"),
    ],
)
def test_what_cannot_be_true_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Record.from_arrays(**arrays(**changes))


def test_no_images_make_no_record() -> None:
    empty = {name: value[:0] for name, value in arrays().items() if name != "split"}
    with pytest.raises(DataError, match="at least one image"):
        Record.from_arrays(split="validation", **empty)


def test_other_files_are_no_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No readable record"):
        read_record(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="No readable record"):
        read_record(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"version must be in .*, but got none"):
        read_record(tmp_path / "other.parquet")


def test_a_table_without_its_columns_is_refused() -> None:
    table = Record.from_arrays(**arrays()).table
    with pytest.raises(DataError, match="must have the columns"):
        Record(table.drop_columns(["loss"]))
    with pytest.raises(DataError, match="must have the columns"):
        Record(table.drop_columns(["channels"]))


def test_answers_come_back_in_order_of_image(tmp_path: Path) -> None:
    record = Record.from_arrays(**arrays(split="policy", **answers()))
    write_record(record, tmp_path / "r.parquet")
    back = read_record(tmp_path / "r.parquet")
    assert back == record
    assert back.answers == AnswerKind(num_classes=3, content="c0ffee")
    assert np.exp(back.log_probabilities_NA[0]).tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert back.answer_classes_NA.tolist() == [[0, 1, 2]] * 3
    assert record != Record.from_arrays(**arrays(split="policy"))


def test_a_network_that_has_diverged_has_answers_that_are_no_numbers() -> None:
    nothing = np.full((3, 3), np.nan)
    record = Record.from_arrays(**arrays(**answers(log_probabilities_NA=nothing)))
    assert np.isnan(record.log_probabilities_NA).all()


def test_of_many_classes_the_likeliest_twenty_are_kept() -> None:
    assert [kept_classes(count) for count in (10, 100, 101, 1000)] == [10, 100, 20, 20]
    few = {
        "answers": AnswerKind(num_classes=1000, content="c0ffee"),
        "log_probabilities_NA": np.log(np.tile([0.5, *[0.02] * 19], (3, 1))),
        "answer_classes_NA": np.array([[label, *range(900, 919)] for label in (1, 2, 2)]),
    }
    assert Record.from_arrays(**arrays(**few)).answer_classes_NA.shape == (3, 20)


def test_a_record_of_the_first_version_has_no_answers(tmp_path: Path) -> None:
    old = Record.from_arrays(**arrays())
    assert old.table.schema.metadata[b"runtime_pruning.record_version"] == b"1"
    write_record(old, tmp_path / "old.parquet")
    assert read_record(tmp_path / "old.parquet").answers is None
    with pytest.raises(DataError, match="written without the answers"):
        _ = old.log_probabilities_NA


def test_no_figures_are_read_off_the_policy_split() -> None:
    provenance = Provenance(
        sweep_id="s",
        config={},
        index=0,
        method="m",
        backbone="b",
        dataset="d",
        seed=0,
        groups=2,
        dense_macs=100,
    )
    with pytest.raises(DataError, match="off a held-out split"):
        derive(Record.from_arrays(**arrays(split="policy")), provenance)
