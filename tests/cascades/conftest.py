"""Tables and answers of which the best cascade is known."""

from typing import Any

import numpy as np
import pytest

from pruning_envs import CascadeTable
from runtime_pruning.frontier.records import AnswerKind, Record

# Member 0 is cheap and unsure of images 2 and 3; member 1 is dear and right. Together: member 1.
PROBABILITIES = np.array(
    [
        [[0.9, 0.1], [0.9, 0.1]],
        [[0.1, 0.9], [0.1, 0.9]],
        [[0.45, 0.55], [0.9, 0.1]],
        [[0.55, 0.45], [0.1, 0.9]],
    ]
)
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def table() -> CascadeTable:
    """Fifty copies of four images."""
    return CascadeTable(
        log_probabilities_NMK=np.tile(np.log(PROBABILITIES), (50, 1, 1)).astype(np.float32),
        labels_N=np.tile(LABELS, 50),
        costs_NM=np.tile(np.array([0.25, 1.0], np.float32), (200, 1)),
        weights_SM=np.array([[0, 0], [1, 0], [0, 1], [0, 1]], np.float32),
    )


def make_record(probabilities_NK: Any, labels_N: Any, macs: int = 100, **changes: Any) -> Record:
    """Return the record of a member that answered so."""
    probabilities = np.asarray(probabilities_NK)
    count, classes = probabilities.shape
    given: dict[str, Any] = {
        "split": "policy",
        "image_ids_N": np.arange(count),
        "labels_N": np.asarray(labels_N),
        "predictions_N": probabilities.argmax(axis=1),
        "losses_N": np.zeros(count, np.float32),
        "channels_NL": np.ones((count, 1), np.int64),
        "executed_macs_N": np.full(count, macs),
        "answers": AnswerKind(num_classes=classes, content="c0ffee"),
        "log_probabilities_NA": np.log(probabilities),
        "answer_classes_NA": np.tile(np.arange(classes), (count, 1)),
        **changes,
    }
    return Record.from_arrays(**given)


@pytest.fixture
def record() -> Any:
    """The function `make_record`."""
    return make_record
