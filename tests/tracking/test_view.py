"""The saved view decodes to what is shown."""

import json

import pytest
from mlflow import MlflowClient
from stores import settle

from runtime_pruning import glossary
from runtime_pruning.tracking.mlflow_store import FrontierTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def test_the_saved_view_decodes(tracker: FrontierTracker, uri: str) -> None:
    import base64
    import zlib

    client = MlflowClient(uri)
    experiment = client.create_experiment("frontier")
    client.set_experiment_tag(experiment, glossary.NOTE, "my own words")
    tracker.start_sweep({})
    other = FrontierTracker(uri, "frontier", "s 2", tracker._spool_dir.parent / "spool-2")
    settle(tracker)
    other.start_sweep({})
    other.start_sweep({})
    settle(other)
    tags = client.get_experiment(experiment).tags
    lines = [line for line in tags[glossary.NOTE].splitlines() if line]
    assert [line.split("]")[0] for line in lines] == [
        "[Frontier of s 2",
        "[Frontier of s1",
        "my own words",
    ]
    saved = json.loads(tags["mlflow.sharedViewState.frontier-s-2"])
    kind, packed = saved["state"].split(";")
    assert kind == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert "tags.`frontier.sweep_id` = 's 2'" in state["searchFilter"]
    keys = {c[axis]["key"] for c in state["compareRunCharts"] for axis in c if axis[1:] == "axis"}
    assert keys <= {metric.name for metric in glossary.ALL_METRICS}
    assert "viewStateShareKey=frontier-s-2&" in str(other.view_path)
