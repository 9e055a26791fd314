"""A sweep small enough for a test: every part real, nothing long."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMALL = (
    "trials=2",
    "settings.rounds=1",
    "settings.episodes_per_round=500",
    "settings.finetune_images=256",
    "resources.env_runner.workers=0",
    "settings.calibration_batches=1",
    "prepare.pretraining_epochs=2",
    "prepare.anywidth_epochs=2",
    "resources.trial.cpus=1",
    "proof.points=2",
    "proof.seeds=2",
    "proof.search_evaluations=4",
    "proof.oracle_images=30",
    "timing.points=2",
    "timing.images=16",
    "timing.batches=[1, 8]",
    "timing.attempts=1",
)

# What Ray is to count on this machine. Every process that it starts imports for seconds, so a sweep
# has one worker, except those that prove that several get on with each other.
ONE_CPU = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}

Frontier = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def small_arguments() -> list[str]:
    """The command line of a small digits sweep."""
    return ["--preset", "digits", *(part for each in SMALL for part in ("--set", each))]


@pytest.fixture(scope="session")
def one_cpu() -> dict[str, str]:
    """Environment in which Ray counts one CPU."""
    return ONE_CPU


@pytest.fixture(scope="session")
def frontier() -> Frontier:
    """Runs the script as a user does, on one CPU or on all that there are."""

    def run(
        arguments: list[str], results: Path, *, all_cpus: bool = False
    ) -> subprocess.CompletedProcess[str]:
        counted = {} if all_cpus else ONE_CPU
        return subprocess.run(
            [sys.executable, "sweeps/frontier.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **counted, "RUNTIME_PRUNING_RESULTS": str(results)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def small_sweep(
    tmp_path_factory: pytest.TempPathFactory, small_arguments: list[str], frontier: Frontier
) -> tuple[Path, str]:
    """A finished small sweep named "small": the folder of its results, and what it printed."""
    results = tmp_path_factory.mktemp("results")
    done = frontier([*small_arguments, "--sweep-id", "small"], results, all_cpus=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return results, done.stdout
