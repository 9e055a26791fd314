"""Runs are found before they are created; what they say first, they keep."""

import logging

import pytest
from mlflow import MlflowClient

from runtime_pruning import glossary
from runtime_pruning.tracking.runs import Runs, flat
from runtime_pruning.tracking.storage import find_or_create_experiment, open_store

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


@pytest.fixture
def runs(uri: str) -> Runs:
    client: MlflowClient = open_store(uri)
    return Runs(client, find_or_create_experiment(client, uri, "e").experiment_id)


def make(runs: Runs, key: str = "s1", parent: str | None = None) -> str:
    run = runs.find_or_create(
        key, name="a run", tags={glossary.KIND: "sweep"}, parent=parent, at_ms=5
    )
    return str(run.info.run_id)


def test_a_run_of_a_key_is_made_once(runs: Runs) -> None:
    first = make(runs)
    assert make(runs) == first != make(runs, "s2")
    found = runs.find("s1")
    assert found is not None
    assert (found.info.run_id, found.info.start_time, found.info.run_name) == (first, 5, "a run")
    assert runs.find("s3") is None
    child = runs.client.get_run(make(runs, "s1/t", parent=first))
    assert child.data.tags[glossary.PARENT] == first
    assert [run.info.run_id for run in runs.search(kind="sweep", key="s1")] == [first]


def test_parameters_keep_their_first_value(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    run_id = make(runs)
    many = {f"p{number}": number for number in range(230)}  # three of MLflow's batches
    runs.write(runs.client.get_run(run_id), params={**many, "long": "x" * 9000}, at_ms=1)
    stored = runs.client.get_run(run_id).data.params
    assert {name: stored[name] for name in many} == {name: str(n) for name, n in many.items()}
    assert len(stored["long"]) == 6000
    with caplog.at_level(logging.WARNING):
        runs.write(runs.client.get_run(run_id), params={"p1": 77, "new": 1}, at_ms=2)
    assert "keeps p1='1'; '77' came later" in caplog.text
    stored = runs.client.get_run(run_id).data.params
    assert (stored["p1"], stored["new"]) == ("1", "1")


def test_a_run_that_goes_on_runs_again(runs: Runs) -> None:
    run = runs.client.get_run(make(runs))
    runs.write(run, metrics={"m": 0.5}, tags={"t": "x"}, at_ms=7, step=3)
    runs.end(run, "FINISHED", 9)
    ended = runs.client.get_run(run.info.run_id)
    assert (ended.info.status, ended.info.end_time) == ("FINISHED", 9)
    (metric,) = runs.client.get_metric_history(run.info.run_id, "m")
    assert (metric.value, metric.timestamp, metric.step) == (0.5, 7, 3)
    runs.reopen(ended)
    assert runs.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_nested_settings_become_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flat(nested, "config.") == {"config.a.b": 1, "config.a.c.d": 2, "config.e": 3}
