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
    "settings.agent.env_runners=0",
    "settings.calibration_batches=1",
    "prepare.pretraining_epochs=2",
    "prepare.anywidth_epochs=2",
    "resources.cpus=1",
    "proof.points=2",
    "proof.seeds=2",
    "proof.search_evaluations=4",
    "proof.oracle_images=30",
)

Frontier = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def small_arguments() -> list[str]:
    """The command line of a small digits sweep."""
    return ["--preset", "digits", *(part for each in SMALL for part in ("--set", each))]


@pytest.fixture(scope="session")
def frontier() -> Frontier:
    """Runs the script as a user does."""

    def run(arguments: list[str], results: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "sweeps/frontier.py", *arguments],
            cwd=ROOT,
            env={**os.environ, "RUNTIME_PRUNING_RESULTS": str(results)},
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
    done = frontier([*small_arguments, "--sweep-id", "small"], results)
    assert done.returncode == 0, done.stdout + done.stderr
    return results, done.stdout
