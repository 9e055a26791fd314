"""What Optuna is told of each point: accuracy, and what it costs.

A latency that guides the search is taken where the trial runs, beside other trials: it is CPU time
of one thread, which says little of what runs beside. It is told to nobody else: the latency that a
point is known by is taken later, on a node of its own (`point_timing`).
"""

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from runtime_pruning.datasets import ImageDataset, to_float
from runtime_pruning.deploy import read_bundle
from runtime_pruning.deploy.deployed import deploy_bundle
from runtime_pruning.files import write_text
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.glossary import ACCURACY, BUNDLE, MACS_FRACTION
from runtime_pruning.sweeping.config import Objective, SweepConfig

LATENCY = "search_latency_ms"  # CPU time per image
NAMES: dict[Objective, str] = {
    "accuracy": ACCURACY.name,
    "macs": MACS_FRACTION.name,
    "latency": LATENCY,
}
_FILE = "search-latency.json"  # beside the point: one that goes on is told the same
_PASSES = 3


def directions(sweep: SweepConfig) -> dict[str, str]:
    """Return which way each objective of a sweep is good, by the name that Tune hears."""
    return {NAMES[each]: "max" if each == "accuracy" else "min" for each in sweep.objectives}


def values_of(point: OperatingPoint, wanted: Iterable[str]) -> list[float] | None:
    """Return a stored point's objectives; None where it does not hold one of them."""
    found = [getattr(point, name, None) for name in wanted]
    return None if None in found else [float(value) for value in found if value is not None]


def latency_of(
    folder: Path, sweep: SweepConfig, data: Callable[[], ImageDataset]
) -> dict[str, float]:
    """Return the latency that guides a sweep's search, by its name; nothing if none does.

    Args:
        folder: of a point; a latency that was not taken yet is taken, and kept there.
        sweep: whose objectives are wanted.
        data: returns the dataset's splits, if they are needed.
    """
    if "latency" not in sweep.objectives:
        return {}
    return {LATENCY: _latency_ms(folder, sweep, data)}


def _latency_ms(folder: Path, sweep: SweepConfig, data: Callable[[], ImageDataset]) -> float:
    """Return the CPU milliseconds of an image, of the first size of batch that points are timed at.

    It is the least of a few passes over the images that points are timed on.
    """
    path = folder / _FILE
    if not path.exists():
        settings, threads = sweep.timing, torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            deployed = deploy_bundle(
                read_bundle(folder / BUNDLE), dtype=getattr(torch, settings.dtype)
            )
            images_NCHW = to_float(data().validation.head(settings.images).images_NCHW[:])
            parts = torch.split(images_NCHW, settings.batches[0])
            least = math.inf
            for _ in range(1 + _PASSES):  # the first compiles
                start = time.thread_time()
                for part in parts:
                    deployed.execute(part)
                least = min(least, time.thread_time() - start)
        finally:
            torch.set_num_threads(threads)
        write_text(path, json.dumps({LATENCY: 1e3 * least / len(images_NCHW)}) + "\n")
    return float(json.loads(path.read_text())[LATENCY])
