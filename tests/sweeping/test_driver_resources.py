"""Who of a sweep gets which GPU, on a cluster that claims some: a head with none, nodes with two.

No GPU is used: in place of the work, each process of the sweep writes down what Ray gave it.
"""

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from runtime_pruning.errors import ConfigError
from runtime_pruning.places import Mirror, Place
from runtime_pruning.resources import EnvRunnerRequest, LearnerRequest, Request, Resources
from runtime_pruning.sweeping import driver
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.cluster import alive_nodes, refuse_what_never_fits
from runtime_pruning.sweeping.driver import Sweep
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.parts import Parts
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.tuning import use_tune_settings

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
RESOURCES = Resources(
    trial=Request(cpus=0.5, gpus=1),
    env_runner=EnvRunnerRequest(cpus=0.25, gpus=0.25, workers=2),
    learner=LearnerRequest(cpus=0.25, gpus=0.5, workers=1),
    control=Request(cpus=0.5),
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, float]]:
    """The GPUs of each node, by its id."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=2)
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    cluster.wait_for_nodes()
    yield {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in ray.nodes()}
    ray.shutdown()
    cluster.shutdown()


def probes(folder: Path) -> dict[str, Any]:
    """Return what runs in place of the driver's tasks: they use what they declare, and note it.

    Functions within a function travel to the workers by value.
    """

    def note(kind: str) -> None:
        told = {
            "kind": kind,
            "node": ray.get_runtime_context().get_node_id(),
            "gpus": ray.get_gpu_ids(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        (folder / f"{uuid.uuid4()}.json").write_text(json.dumps(told))

    def task(kind: str) -> Callable[..., Any]:
        def run(*_: Any, sweep: Any, **__: Any) -> list[Path]:
            sweep.resources.control.use()
            note(kind)
            return []

        return run

    def run_trial(params: dict[str, Any], *, sweep: Any, **_: Any) -> None:
        note("trial")
        agent = sweep.resources.agent
        kinds = ["env runner"] * agent.env_runner.workers + ["learner"] * agent.learner.workers
        ray.get(
            [
                ray.remote(**each.options)(note).remote(kind)
                for kind, each in zip(kinds, agent.processes, strict=True)
            ]
        )
        tune.report({"accuracy": 0.5, "macs_fraction": 0.5, "point": 0, "ended": True})

    tasks = {"run_control": "control", "prove_point": "proof", "measure_on_test": "exam"}
    return {"run_trial": run_trial, **{name: task(kind) for name, kind in tasks.items()}}


def test_each_process_gets_what_it_asked_for_and_no_other_sees_a_gpu(
    nodes: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for name, probe in probes(notes).items():
        monkeypatch.setattr(driver, name, probe)
    material = check_sweep(load_preset("digits", PRESETS, ["trials=2", "controls=[dense]"]))
    ledger = MagicMock(spec=Ledger)
    ledger.fixed_folders.return_value = []
    points = [tmp_path / "sweep" / "point"]
    ledger.proof_candidates.return_value = ledger.test_candidates.return_value = points
    use_tune_settings()
    sweep = Sweep(
        material=replace(material, sweep=replace(material.sweep, resources=RESOURCES)),
        prepared=SimpleNamespace(  # type: ignore[arg-type]
            network=None, dense=None, key="key", network_effort=None, dense_effort=None
        ),
        sweep_id="claims",
        mirror=Mirror.of(tmp_path / "sweep"),
        parts=Parts(Place.at(tmp_path / "sweep"), [2]),
        ledger=ledger,
    )
    sweep.run()
    assert sweep.failures == []

    found = [SimpleNamespace(**json.loads(path.read_text())) for path in notes.iterdir()]
    wanted = {"control": 1, "proof": 2, "exam": 1, "trial": 2, "env runner": 4, "learner": 2}
    assert Counter(each.kind for each in found) == wanted
    for each in found:
        if each.kind in ("control", "proof", "exam"):
            assert (each.gpus, each.visible) == ([], "")
        else:  # never on the head, which has none
            assert nodes[each.node] == 2
            (gpu,) = each.gpus
            assert each.visible == str(gpu)


def test_what_no_node_can_hold_is_refused(nodes: dict[str, float]) -> None:
    assert sorted(nodes.values()) == [0, 2, 2]
    resources = Resources(trial=Request(gpus=1), learner=LearnerRequest(gpus=1, workers=4))
    processes = resources.trial_processes(trains_agent=True)
    with pytest.raises(ConfigError, match="= 5 GPU; the largest node has 2, all nodes 4"):
        refuse_what_never_fits("trial", processes, alive_nodes())
