"""The presets on CIFAR-10, small: published weights, real images, the whole way."""

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
    "held_out_limit=32",
    "settings.rounds=1",
    "settings.episodes_per_round=32",
    "settings.finetune_images=64",
    "settings.finetune_batch=32",
    "settings.calibration_batches=1",
    "settings.agent.images_per_runner=32",
    "settings.agent.warmup_episodes=32",
    "proof.seeds=1",
    "proof.calibration_batches=1",
    "proof.search_evaluations=1",
    "proof.search_images=32",
    "proof.oracle_images=2",
    "prepare.anywidth_epochs=1",
    "prepare.limit=64",
    "prepare.batch_size=32",
    "timing.points=0",
)


@pytest.mark.skipif(
    not ((DATA / "cifar10-train.parquet").exists() and WEIGHTS.exists()),
    reason="needs CIFAR-10 as Parquet and published weights",
)
@pytest.mark.parametrize(
    ("preset", "own", "points"),
    [
        pytest.param("cifar10-quick", (), 2, marks=pytest.mark.long),
        ("cifar10-resnet20", ("settings.dials=2",), 3),
        pytest.param(
            *("cifar10-resnet56", ("settings.dials=2", "proof.points=0"), 3),
            marks=pytest.mark.long,
        ),
        (
            "cifar10-mcifarnet",
            # ResNet-20's try two points; here a second one takes 15 seconds.
            ("settings.dials=2", "prepare.pretraining_epochs=1", "proof.points=1"),
            3,
        ),
    ],
)
def test_it_runs_on_real_images(
    frontier: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
    preset: str,
    own: tuple[str, ...],
    points: int,
) -> None:
    settings = [part for each in (*SMALL, *own) for part in ("--set", each)]
    folders = ["--data-dir", str(DATA), "--weights-dir", str(WEIGHTS)]
    done = frontier(["--preset", preset, *folders, *settings], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{points} operating points in" in done.stdout
