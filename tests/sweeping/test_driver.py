"""What fails is told, kept and tracked, and the sweep goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient
from tqdm import tqdm

from runtime_pruning.frontier.points import trial_key
from runtime_pruning.methods import Effort
from runtime_pruning.places import Mirror, Place
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.driver import Sweep
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.parts import Parts
from runtime_pruning.sweeping.prepare import Prepared
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.trial import trial_config
from runtime_pruning.tracking.mlflow_store import FrontierTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")
PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


@pytest.fixture
def tracker(tmp_path: Path) -> FrontierTracker:
    return FrontierTracker(f"sqlite:///{tmp_path}/mlflow.db", "frontier", "s1", tmp_path / "spool")


@pytest.fixture
def sweep(tracker: FrontierTracker, tmp_path: Path) -> Sweep:
    material = check_sweep(load_preset("digits", PRESETS))
    prepared = Prepared(material.network, material.network, "key", Effort(), Effort(), {})
    return Sweep(
        material=material,
        prepared=prepared,
        sweep_id="s1",
        mirror=Mirror.of(tmp_path),
        parts=Parts(Place.at(tmp_path), [1]),
        ledger=Ledger(tracker, "rnp"),
    )


def test_a_trial_that_fails_before_its_first_point_is_tracked_with_its_traceback(
    sweep: Sweep, tracker: FrontierTracker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "error.txt"
    log.write_text("Traceback: ZeroDivisionError")
    bad, good = {"groups": 2, "penalty": 0.5}, {"groups": 4, "penalty": 0.5}
    with tqdm(total=2, disable=True) as bar:
        sweep._bar = bar
        for params in (bad, good):
            sweep.on_trial_start(params)
        sweep.on_trial_end(bad, log)
        sweep.on_trial_end(good, None)
    assert sweep.failures == [f"The trial with {bad} failed: see {log}"]
    assert sweep.failures[0] in capsys.readouterr().out
    assert tracker.finish("FAILED") == 0

    client = MlflowClient(tracker.uri)
    runs = client.search_runs(["1"], "tags.`frontier.kind` = 'trial'")
    key = trial_key(trial_config(sweep.sweep, "rnp", bad, "key"))
    ended = {run.data.tags["frontier.trial_key"] == key: run for run in runs}
    assert (ended[True].info.status, ended[False].info.status) == ("FAILED", "FINISHED")
    assert ended[True].data.params["penalty"] == "0.5"
    (file,) = client.list_artifacts(ended[True].info.run_id)
    path = client.download_artifacts(ended[True].info.run_id, file.path, str(tmp_path))
    assert Path(path).read_text() == "Traceback: ZeroDivisionError"


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_task_that_fails_is_told_and_the_others_are_used(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    @ray.remote
    def divide(by: int) -> int:
        return 6 // by

    running = {by: divide.remote(by) for by in (2, 0, 3)}
    ended = dict(sweep._ended(running, "Control {}"))
    assert {by: task.result for by, task in ended.items()} == {2: 3, 0: None, 3: 2}
    assert "integer division or modulo by zero" in str(ended[0].error)
    (failure,) = sweep.failures
    assert failure.startswith("Control 0 failed: ZeroDivisionError")
    assert failure in capsys.readouterr().out
