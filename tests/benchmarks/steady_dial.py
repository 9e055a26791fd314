"""What a dial that turns by itself costs in accuracy, against one that stays where it was put.

Run:     python tests/benchmarks/steady_dial.py BUNDLE TARGET_MS
Expect:  per stretch of the input (easy, hard, easy): ms of an image and accuracy of both.

Easy images are those of the test split that the cheaper half of the dial's network is surest of.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.datasets import load, to_float
from runtime_pruning.deploy.shipped import ShippedBundle, load_bundle
from runtime_pruning.deploy.steady import SteadyBundle

BATCH, BATCHES = 32, 40

Batch = tuple[str, Tensor, Tensor]


def mixed(shipped: ShippedBundle) -> Iterator[Batch]:
    """Yield batches of easy, of hard, and of easy images again, with their labels."""
    test = load(shipped.card.dataset, settings=shipped.card.dataset_settings).test
    images, labels = to_float(test.images_NCHW[:]), torch.from_numpy(test.labels_N.copy())
    sure = shipped.run(images, 0.0).probabilities_BK.amax(1).argsort()
    parts = {"hard": sure[: len(sure) // 3], "easy": sure[-len(sure) // 3 :]}
    rng = np.random.default_rng(0)
    for name in ("easy", "hard", "easy"):
        for _ in range(BATCHES):
            rows = parts[name][rng.choice(len(parts[name]), BATCH)]
            yield name, images[rows], labels[rows]


def main() -> None:
    """Print both dials, stretch by stretch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("target_ms", type=float)
    arguments = parser.parse_args()
    shipped = load_bundle(arguments.bundle)
    steady = SteadyBundle(shipped, arguments.target_ms)
    batches = list(mixed(shipped))
    for _, images, _ in batches[:BATCHES]:
        steady.predict(images)
    fixed = steady.controller.position
    for name, stretch in groupby(batches, key=lambda batch: batch[0]):
        told = {"turned": [0.0, 0.0], "fixed": [0.0, 0.0]}
        count = 0
        for _, images, labels in stretch:
            for which, sums in told.items():
                start = time.perf_counter()
                found = steady.predict(images) if which == "turned" else shipped.run(images, fixed)
                sums[0] += 1e3 * (time.perf_counter() - start)
                sums[1] += float((found.numbers_B == labels).sum())
            count += len(labels)
        parts = [
            f"{which} {ms / count:.3f} ms {right / count:.2%}"
            for which, (ms, right) in told.items()
        ]
        print(f"{name}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
