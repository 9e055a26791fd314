"""The Kubernetes manifests against KubeRay's schema, and what they promise."""

import copy
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from runtime_pruning.cli import main

ROOT = Path(__file__).parents[2]
Read = Callable[[Path], Any]
Faults = Callable[[Any, Any], list[str]]


@pytest.fixture
def raycluster(cluster: Path, read: Read) -> Any:
    return read(cluster / "kuberay" / "raycluster.yaml")


@pytest.fixture
def rayjob(cluster: Path, read: Read) -> Any:
    return read(cluster / "kuberay" / "rayjob.yaml")


def containers(spec: Any) -> dict[str, Any]:
    """Return the container of the head and of each group."""
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    every = {"head": spec["headGroupSpec"], **groups}
    return {name: group["template"]["spec"]["containers"][0] for name, group in every.items()}


def test_both_are_what_kuberays_schema_asks_for(
    raycluster: Any, rayjob: Any, faults: Faults
) -> None:
    assert faults(raycluster, "raycluster") == []
    assert faults(rayjob, "rayjob") == []


def test_the_schema_refuses_what_kuberay_refuses(raycluster: Any, faults: Faults) -> None:
    broken = copy.deepcopy(raycluster)
    group = broken["spec"]["workerGroupSpecs"][0]
    del group["minReplicas"]
    group["maxReplica"] = 3
    broken["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    broken["spec"]["autoscalerOptions"]["version"] = "v3"
    found = " ".join(faults(broken, "raycluster"))
    assert "'minReplicas' is a required property" in found
    assert "'maxReplica' was unexpected" in found
    assert "num-cpus: 0 is not of type 'string'" in found
    assert "'v3' is not one of" in found


def test_a_job_runs_on_a_cluster_like_the_one_that_stays(raycluster: Any, rayjob: Any) -> None:
    assert rayjob["spec"]["rayClusterSpec"] == raycluster["spec"]
    assert raycluster["spec"]["rayVersion"] == version("ray")


def test_the_head_runs_no_trial_and_gpus_are_declared(raycluster: Any) -> None:
    spec = raycluster["spec"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    gpus = {
        name: container["resources"]["limits"].get("nvidia.com/gpu")
        for name, container in containers(spec).items()
    }
    assert gpus == {"head": None, "cpu": None, "gpu": "1"}
    # Kubernetes refuses a pod whose requests of GPUs differ from its limits.
    asked = containers(spec)["gpu"]["resources"]["requests"]["nvidia.com/gpu"]
    assert asked == "1"


def test_every_node_sees_the_results(cluster: Path, read: Read, raycluster: Any) -> None:
    claim = read(cluster / "kuberay" / "storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pods = [raycluster["spec"]["headGroupSpec"], *raycluster["spec"]["workerGroupSpecs"]]
    for pod in pods:
        (volume,) = pod["template"]["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for container in containers(raycluster["spec"]).values():
        (mount,) = container["volumeMounts"]
        values = {each["name"]: each["value"] for each in container["env"]}
        assert values["RUNTIME_PRUNING_RESULTS"].startswith(f"{mount['mountPath']}/")


def test_the_jobs_command_is_one_of_ours(
    cluster: Path, rayjob: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    python, script, *arguments = shlex.split(rayjob["spec"]["entrypoint"])
    assert python == "python"
    inside = Path(script).relative_to("/opt/runtime-pruning")
    assert (ROOT / inside).is_file()
    copied = (cluster / "Dockerfile").read_text()
    assert f"{inside.parts[0]} /opt/runtime-pruning/{inside.parts[0]}" in copied
    # A retry, on a fresh cluster, goes on with the same sweep.
    assert "--sweep-id" in arguments
    assert main(["sweep", *arguments, "--help"]) == 0  # with options that do not exist it is 2
    assert "Usage: " in capsys.readouterr().out
    assert rayjob["spec"]["backoffLimit"] > 0
