"""Plausible records from a seed: for tests and nothing else.

Images have a difficulty; a policy that spends more MACs gets harder ones right.
"""

import numpy as np

from runtime_pruning.frontier import OperatingPoint, Provenance, Record, derive

DENSE_MACS = 40_000_000
DENSE_ACCURACY = 0.917
SITES = 9


def make_record(
    fraction: float,
    *,
    images: int = 500,
    skill: float = 1.0,
    seed: int = 0,
    split: str = "validation",
) -> Record:
    """A record of mean cost ``fraction`` of dense; ``skill`` below 1 loses accuracy."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(10, size=images)
    difficulty_N = rng.random(images)
    share_N = np.clip(fraction * (0.6 + 0.8 * difficulty_N), 0.05, 1.1)
    solved = DENSE_ACCURACY * skill * (1 - np.exp(-6 * fraction))
    noise_N = rng.normal(0, 0.03, images)
    correct_N = difficulty_N + noise_N < solved
    return Record.from_arrays(
        split=split,  # type: ignore[arg-type]
        image_ids_N=rng.permutation(images) + 1000,
        labels_N=labels_N,
        predictions_N=np.where(correct_N, labels_N, (labels_N + 1) % 10),
        losses_N=np.where(correct_N, 0.1, 2.0).astype(np.float32),
        channels_NL=np.round(np.outer(share_N, np.full(SITES, 64))).astype(np.int64),
        executed_macs_N=np.round(share_N * DENSE_MACS).astype(np.int64),
    )


def make_point(
    fraction: float,
    *,
    sweep_id: str = "s1",
    method: str = "rnp",
    groups: int = 4,
    penalty: float | None = None,
    index: int = 0,
    seed: int = 0,
    skill: float = 1.0,
    images: int = 500,
) -> tuple[OperatingPoint, Record]:
    """A point of that cost, with its record."""
    record = make_record(fraction, images=images, skill=skill, seed=seed)
    provenance = Provenance(
        sweep_id=sweep_id,
        config={"method": method, "groups": groups, "penalty": penalty, "fraction": fraction},
        index=index,
        method=method,
        backbone="resnet20-cifar",
        dataset="cifar10",
        seed=seed,
        groups=groups,
        penalty=penalty,
        dense_macs=DENSE_MACS,
        code_version="0.1.0",
        env_steps=1000,
        train_seconds=12.5,
        epochs=2.0,
    )
    return derive(record, provenance), record


def make_sweep(sweep_id: str = "s1", images: int = 500) -> list[tuple[OperatingPoint, Record]]:
    """Eight points of a method and four of a control that it beats in most places."""
    fractions = (0.22, 0.3, 0.38, 0.45, 0.55, 0.66, 0.8, 0.93)
    learned = [
        make_point(
            fraction,
            sweep_id=sweep_id,
            groups=(2, 4)[i % 2],
            penalty=round(0.02 / fraction, 4),
            skill=(1.0, 0.985)[i % 2],
            images=images,
        )
        for i, fraction in enumerate(fractions)
    ]
    fixed = [
        make_point(fraction, sweep_id=sweep_id, method="fixed-width", skill=0.97, images=images)
        for fraction in (0.25, 0.5, 0.75, 1.0)
    ]
    return learned + fixed
