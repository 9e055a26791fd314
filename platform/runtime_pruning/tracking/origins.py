"""Where runs in MLflow came from: the code, the dataset, the configuration of a trial."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from runtime_pruning import glossary
from runtime_pruning.tracking.notes import meaning_table

# MLflow's own names.
_SOURCE, _SOURCE_TYPE, _COMMIT = (
    "mlflow.source.name",
    "mlflow.source.type",
    "mlflow.source.git.commit",
)
_DATASET_CONTEXT = "mlflow.data.context"
_MOST_DIGEST = 36  # characters, MLflow's own limit


def trial_note(params: Mapping[str, Any]) -> str:
    """Return the description of a trial's run, in Markdown."""
    return (
        f"One configuration of `{params.get('method', '?')}`: its parameters are on this run, its "
        "operating points are the runs below it. `accuracy` and `macs_fraction` here are by point."
        f"\n\n{meaning_table(glossary.CURVE_METRICS)}"
    )


def source_tags(code_version: str) -> dict[str, str]:
    """Return the tags of MLflow's column Source.

    Args:
        code_version: as a point carries it; its commit, where it has one.
    """
    commit = re.search(r"(?:^|\+)([0-9a-f]{7,40})(?:\.changed)?$", code_version)
    own = {_SOURCE: f"runtime-pruning {code_version}", _SOURCE_TYPE: "PROJECT"}
    return own if commit is None else {**own, _COMMIT: commit[1]}


def dataset_input(data: Mapping[str, Any]) -> DatasetInput:
    """Return a dataset as MLflow logs it.

    Args:
        data: its ``name``, the hash of its ``content``, and images of each of its splits.
    """
    splits = {name: value for name, value in data.items() if name not in ("name", "content")}
    dataset = Dataset(
        name=str(data["name"]),
        digest=str(data["content"])[:_MOST_DIGEST],
        source_type="runtime-pruning",
        source=json.dumps({"dataset": data["name"]}),
        profile=json.dumps(splits),
    )
    return DatasetInput(dataset, [InputTag(_DATASET_CONTEXT, "training, policy, validation, test")])
