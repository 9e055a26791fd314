"""A table of two members on four images, by hand."""

from typing import Any

import numpy as np

from pruning_envs import CascadeTable

# Member 0 is cheap and unsure of images 2 and 3; member 1 is dear and right. Together: member 1.
PROBABILITIES = np.array(
    [
        [[0.9, 0.1], [0.9, 0.1]],
        [[0.1, 0.9], [0.1, 0.9]],
        [[0.5, 0.5], [0.9, 0.1]],
        [[0.5, 0.5], [0.1, 0.9]],
    ]
)


LABELS = np.array([0, 1, 0, 1])

STOP, CHEAP, DEAR = 0, 1, 2


def table(**changes: Any) -> CascadeTable:
    given: dict[str, Any] = {
        "log_probabilities_NMK": np.log(PROBABILITIES).astype(np.float32),
        "labels_N": LABELS,
        "costs_NM": np.tile(np.array([0.25, 1.0], np.float32), (4, 1)),
        "weights_SM": np.array([[0, 0], [1, 0], [0, 1], [0, 1]], np.float32),
        **changes,
    }
    return CascadeTable(**given)
