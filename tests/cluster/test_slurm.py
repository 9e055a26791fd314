"""The Slurm script: its syntax, and what it starts where, with Slurm's commands noted only."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

# Notes a line per call; as `srun` it notes the node, and runs `hostname` only.
NOTES = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
    "scontrol show hostnames"*) printf 'node-a\\nnode-b\\nnode-c\\n' ;;
    *"hostname -I"*) echo "10.0.0.7 fe80::1" ;;
    "srun "*) exec sleep 60 ;;
    "python cluster/wait_for_nodes.py"*)
        until [ "$(grep -c "ray start" "$CALLS")" = "$2" ]; do sleep 0.05; done ;;
    "python sweeps/frontier.py"*)
        trap 'echo asked to end >> "$CALLS"; exit 3' TERM
        echo "token ${#RAY_AUTH_TOKEN} address $RAY_ADDRESS" >> "$CALLS"
        for _ in $(seq ${SWEEP_TENTHS:-0}); do sleep 0.1; done
        exit ${SWEEP_CODE:-0} ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment as Slurm's, with programs that note their calls."""
    for name in ("srun", "scontrol", "python"):
        (tmp_path / name).write_text(NOTES)
        (tmp_path / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": str(tmp_path / "python"),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "2",
    }


def test_bash_reads_it(cluster: Path) -> None:
    subprocess.run(["bash", "-n", cluster / "slurm.sh"], check=True)
    assert os.access(cluster / "slurm.sh", os.X_OK)


def run(cluster: Path, environment: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Run the script to its end; return its exit code, and what it called, sorted."""
    command = ["bash", str(cluster / "slurm.sh"), *arguments]
    done = subprocess.run(command, env=environment, cwd=cluster.parent, timeout=60, check=False)
    return done.returncode, sorted(Path(environment["CALLS"]).read_text().splitlines())


def test_a_head_and_workers_are_started_and_then_the_sweep(
    cluster: Path, slurm: dict[str, str]
) -> None:
    code, calls = run(cluster, slurm, "--preset", "digits", "--sweep-id", "a b")
    assert code == 0
    port = 20000 + 123456 % 20000
    started = [call for call in calls if "ray start" in call]
    on = {call.split(" -w ")[1].split()[0]: call for call in started}
    assert sorted(on) == ["node-a", "node-b", "node-c"]
    assert f"--head --block --node-ip-address=10.0.0.7 --port={port}" in on["node-a"]
    for worker in ("node-b", "node-c"):
        assert f"ray start --block --address=10.0.0.7:{port}" in on[worker]
    assert all("--num-cpus=8 --num-gpus=2" in call for call in started)
    assert "python cluster/wait_for_nodes.py 3" in calls
    assert "python sweeps/frontier.py --preset digits --sweep-id a b" in calls
    assert f"token 64 address 10.0.0.7:{port}" in calls


def test_a_sweeps_failure_is_the_jobs(cluster: Path, slurm: dict[str, str]) -> None:
    assert run(cluster, {**slurm, "SWEEP_CODE": "2"})[0] == 2


def test_slurms_warning_reaches_the_sweep_and_is_waited_for(
    cluster: Path, slurm: dict[str, str]
) -> None:
    slurm["SWEEP_TENTHS"] = "300"
    script = subprocess.Popen(["bash", str(cluster / "slurm.sh")], env=slurm, cwd=cluster.parent)
    ends = time.monotonic() + 30
    while "token" not in noted(slurm):
        assert time.monotonic() < ends
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    assert script.wait(30) == 3
    assert "asked to end" in noted(slurm)


def noted(slurm: dict[str, str]) -> str:
    """Return what was called so far."""
    calls = Path(slurm["CALLS"])
    return calls.read_text() if calls.exists() else ""
