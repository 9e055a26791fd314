"""The preset `cifar10-quick`, small: published weights, real images, the whole way."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SHARED = Path(__file__).parents[3] / "shared"
DATA = Path(os.environ.get("RUNTIME_PRUNING_DATA", SHARED / "data"))
WEIGHTS = Path(os.environ.get("RUNTIME_PRUNING_WEIGHTS", SHARED / "weights"))
SMALL = (
    "trials=1",
    "controls=[dense]",
    "held_out_limit=64",
    "settings.rounds=1",
    "settings.episodes_per_round=64",
    "settings.finetune_images=64",
    "settings.finetune_batch=32",
    "settings.calibration_batches=1",
    "settings.agent.images_per_runner=32",
    "settings.agent.warmup_episodes=32",
    "prepare.anywidth_epochs=1",
    "prepare.limit=64",
    "prepare.batch_size=32",
)


@pytest.mark.skipif(
    not ((DATA / "cifar10-train.parquet").exists() and WEIGHTS.exists()),
    reason="needs CIFAR-10 as Parquet and published weights",
)
def test_it_runs_on_real_images_with_an_env_runner_of_its_own(
    frontier: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    settings = [part for each in SMALL for part in ("--set", each)]
    folders = ["--data-dir", str(DATA), "--weights-dir", str(WEIGHTS)]
    done = frontier(["--preset", "cifar10-quick", *folders, *settings], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 operating points in" in done.stdout
