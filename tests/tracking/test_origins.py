"""Runs say where they came from: learning curves, code, dataset."""

import json
from pathlib import Path
from types import ModuleType

from mlflow import MlflowClient

from runtime_pruning import glossary
from runtime_pruning.frontier.records import write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.origins import source_tags

DATA = {"name": "digits", "content": "c" * 64, "TrainingSplit": 897, "TestSplit": 350}


def test_runs_explain_themselves(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType, tmp_path: Path
) -> None:
    point, record = synthetic.make_point(0.5)
    write_record(record, tmp_path / "record.parquet")
    curves = {"agent.return": [(100, -1.5), (200, -1.0)], "finetune.accuracy": [(1, 0.5)]}
    tracker.start_sweep({"code_version": "0.1.0+1ffc802db748.changed", "data": DATA})
    tracker.log_curves("preparation-k", {"prepare.dense.loss": [(1, 2.0), (2, 1.0)]})
    tracker.start_trial(point.trial_key, {"method": "rnp", "penalty": 0.3})
    for _ in range(2):  # a driver that was killed in between logs both again
        tracker.log_curves(point.point_id, curves, point.trial_key)
        tracker.log_point(point, tmp_path / "record.parquet")
        assert tracker.replay() == 0
    assert tracker.finish() == 0

    client = MlflowClient(uri)
    runs = {
        run.data.tags[glossary.KIND]: run
        for run in client.search_runs([client.search_experiments()[0].experiment_id])
    }
    sweep, trial, shown = runs["sweep"], runs["trial"], runs["point"]

    def history(run_id: str, name: str) -> list[tuple[int, float]]:
        return [(each.step, each.value) for each in client.get_metric_history(run_id, name)]

    assert history(trial.info.run_id, "agent.return") == [(100, -1.5), (200, -1.0)]
    assert history(trial.info.run_id, "finetune.accuracy") == [(1, 0.5)]
    assert history(trial.info.run_id, "accuracy") == [(point.index, point.accuracy)]
    assert history(sweep.info.run_id, "prepare.dense.loss") == [(1, 2.0), (2, 1.0)]
    assert sweep.data.tags["mlflow.source.git.commit"] == "1ffc802db748"
    assert shown.data.tags["mlflow.source.name"] == "runtime-pruning 0.1.0"
    (logged,) = sweep.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("digits", "c" * 36)
    assert json.loads(logged.dataset.profile) == {"TrainingSplit": 897, "TestSplit": 350}
    assert glossary.AGENT_RETURN.meaning in trial.data.tags[glossary.NOTE]


def test_sources_without_a_commit_name_none() -> None:
    assert "mlflow.source.git.commit" not in source_tags("0.1.0+sources.5d1c0a9e77b2")
    assert source_tags("1ffc802db748")["mlflow.source.git.commit"] == "1ffc802db748"
