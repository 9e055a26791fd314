"""What is refused before a trial could wait for ever, and what workers get."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.runtime_env import RuntimeEnv
from ray.runtime_env.runtime_env import _merge_runtime_env

from runtime_pruning.errors import ConfigError, UserError
from runtime_pruning.places import Place
from runtime_pruning.resources import EnvRunnerRequest, Request, Resources
from runtime_pruning.sweeping.cluster import (
    most_at_once,
    refuse_dead_address,
    refuse_unshared,
    refuse_what_never_fits,
    runtime_environment,
)


@pytest.mark.ray
def test_a_folder_that_one_node_does_not_see_is_refused(tmp_path: Path) -> None:
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
        refuse_unshared(Place.at(tmp_path))
        # A name that each process understands in its own way.
        descriptor = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(ConfigError, match="all nodes see and may write to"):
            refuse_unshared(Place.at(f"/proc/self/fd/{descriptor}"))
        os.close(descriptor)
        assert list(tmp_path.iterdir()) == []
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_workers_get_ours_and_what_the_user_gave_to_the_job(tmp_path: Path) -> None:
    job = {
        "working_dir": "gcs://_ray_pkg_1.zip",
        "pip": ["requests"],
        "py_modules": ["gcs://_ray_pkg_2.zip"],
        "env_vars": {"RUNTIME_PRUNING_DATA": "/theirs", "THEIRS": "1"},
    }
    ours = {
        "RUNTIME_PRUNING_DATA": "/theirs",
        "RUNTIME_PRUNING_WEIGHTS": "/ours",
        "RUNTIME_PRUNING_PLUGINS": "a.b",
        "HOME": "/somewhere",
    }
    added = runtime_environment([tmp_path], ours, job)
    assert added == {
        "py_modules": [str(tmp_path), "gcs://_ray_pkg_2.zip"],
        "env_vars": {"RUNTIME_PRUNING_WEIGHTS": "/ours", "RUNTIME_PRUNING_PLUGINS": "a.b"},
    }
    # As Ray merges them: key by key, ours in place of the job's.
    merged = _merge_runtime_env(RuntimeEnv(**job), RuntimeEnv(**added), override=True)
    assert {name: merged[name] for name in merged if not name.startswith("_")} == {
        "working_dir": "gcs://_ray_pkg_1.zip",
        "pip": {"packages": ["requests"], "pip_check": False},
        "py_modules": added["py_modules"],
        "env_vars": {**job["env_vars"], **added["env_vars"]},
    }
    del job["py_modules"]
    again = runtime_environment([tmp_path], ours, job)
    assert _merge_runtime_env(RuntimeEnv(**job), RuntimeEnv(**again)) is not None


def test_outside_a_job_workers_get_ours() -> None:
    added = runtime_environment([], {"RUNTIME_PRUNING_DATA": "/ours"}, {})
    assert added == {"py_modules": [], "env_vars": {"RUNTIME_PRUNING_DATA": "/ours"}}


def test_a_dead_head_is_refused_and_a_living_one_is_not() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"nothing answers at '127.0.0.1:{port}'"):
            refuse_dead_address(f"127.0.0.1:{port}")
        server.listen()
        refuse_dead_address(f"ray://127.0.0.1:{port}")
    refuse_dead_address("local")


@pytest.mark.parametrize(
    ("resources", "nodes", "arithmetic"),
    [
        (Resources(trial=Request(cpus=4)), [{"CPU": 2.0}] * 2, "4 = 4 CPU; the largest node has 2"),
        (
            Resources(env_runner=EnvRunnerRequest(cpus=1, workers=2)),
            [{"CPU": 2.0}],
            "its 3 processes ask for 1 + 1 + 1 = 3 CPU; the largest node has 2, all nodes 2.",
        ),
        (Resources(trial=Request(gpus=1)), [{"CPU": 8.0}], "1 = 1 GPU; the largest node has 0"),
        (Resources(), [], "1 = 1 CPU; the largest node has 0, all nodes 0."),
    ],
)
def test_a_trial_that_never_fits_is_refused_with_the_arithmetic(
    resources: Resources, nodes: list[dict[str, float]], arithmetic: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_what_never_fits("trial", resources.trial_processes(trains_agent=True), nodes)
    assert arithmetic in str(caught.value)


def test_where_the_cluster_may_grow_a_trial_waits_and_says_for_what(
    capsys: pytest.CaptureFixture[str],
) -> None:
    processes = Resources(trial=Request(cpus=4, gpus=1)).trial_processes(trains_agent=False)
    refuse_what_never_fits("trial", processes, [{"CPU": 2.0}], grows=True)
    told = capsys.readouterr().out
    assert "waits until the cluster has grown: its 1 processes ask for 4 = 4 CPU; the" in told
    assert "ask for 1 = 1 GPU; the largest node has 0, all nodes 0." in told


@pytest.mark.parametrize(
    ("trial", "most"),
    [
        (Request(cpus=1.5), 5),  # 8 CPU of all three nodes / 1.5
        (Request(cpus=1, gpus=0.5), 2),  # 1 GPU / 0.5, though there were CPUs for eight
        (Request(cpus=64), 1),
    ],
)
def test_as_many_trials_wait_as_the_nodes_hold(trial: Request, most: int) -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]
    assert most_at_once([trial], nodes) == most


def test_a_trial_that_fits_passes() -> None:
    runners = EnvRunnerRequest(cpus=0.5, gpus=0.25, workers=2)
    resources = Resources(trial=Request(cpus=1, gpus=0.5), env_runner=runners)
    processes = resources.trial_processes(trains_agent=True)
    refuse_what_never_fits("trial", processes, [{"CPU": 2.0, "GPU": 1.0}])


def test_sigterm_ends_what_was_started_with_sigint_ignored() -> None:
    program = (
        "import os, signal, time\n"
        "from runtime_pruning.sweeping.cluster import end_on_sigterm\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as a script's background jobs have it
        "end_on_sigterm()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "ended\n", done.stderr


def test_sigint_ends_what_comes_after_a_tuning_run(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, time\n"
        "from ray import tune\n"
        "from runtime_pruning.sweeping.cluster import sigint_given_back\n"
        # A script's background jobs, and so these tests there, start with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with sigint_given_back():\n"
        "    kept = tune.RunConfig(storage_path=sys.argv[1], verbose=0)\n"
        "    tune.Tuner(lambda config: {'score': 1}, run_config=kept).fit()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("ended\n"), done.stderr
