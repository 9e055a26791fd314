"""The saved view decodes to what is shown; what it shows of many points; addresses."""

import json

import pytest
from mlflow import MlflowClient
from stores import settle

from runtime_pruning import glossary
from runtime_pruning.frontier.style import look
from runtime_pruning.tracking import view
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
    assert "tags.`frontier.in_view` = 'true'" in state["searchFilter"]
    assert "viewStateShareKey=frontier-s-2&" in lines[0]
    assert str(other.page_path).removeprefix("/") in lines[0]
    assert str(other.page_path).endswith("/artifacts/frontier.html?workflowType=machine_learning")


def test_more_points_than_a_chart_holds() -> None:
    on_front = {f"{i:04x}": i % 50 == 0 for i in range(1000)}  # 20 on the front
    shown = view.in_view(on_front, ["0001"])
    assert len(shown) == view.IN_VIEW
    assert {id_ for id_, on in on_front.items() if on} <= shown
    assert "0001" in shown  # the dense network
    # A point that comes moves one other at most.
    more = view.in_view({**on_front, "new": False}, ["0001"])
    assert len(shown - more) <= 1
    assert view.in_view({**on_front, "new": True}, ["0001"]) - shown == {"new"}
    few = {"a": False, "b": True}
    assert view.in_view(few) == {"a", "b"}


def test_a_front_of_more_than_a_chart_holds() -> None:
    assert len(view.in_view({f"{i:04x}": True for i in range(150)})) == view.IN_VIEW


def test_colours_of_runs() -> None:
    assert view.run_colour("rnp", on_front=True) == look("rnp").colour == "#D55E00"
    # A third of the way from white: (213 + 510) / 3, (94 + 510) / 3, 510 / 3.
    assert view.run_colour("rnp", on_front=False) == "#F1C9AA"


def test_an_address_without_its_password() -> None:
    assert view.without_credentials("https://me:secret@host:5000/") == "https://host:5000"
    assert view.without_credentials("http://host/mlflow") == "http://host/mlflow"
