"""What runs on a worker that has its node to itself: timing one reported point.

Beside the point, ``timings.json`` holds what was measured. A point that has it is not timed again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime_pruning.datasets import ImageDataset, to_float
from runtime_pruning.deploy import read_bundle, read_network_bundle
from runtime_pruning.deploy.timing import time_bundle
from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.timings import PointTiming, read_timings, write_timings
from runtime_pruning.glossary import BUNDLE, TIMINGS
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.timing.device import this_device


def time_point(
    folder: Path, dense: Path | None, *, sweep: SweepConfig, data: ImageDataset
) -> list[PointTiming]:
    """Time a point's bundle against the dense network; write and return what was measured.

    Args:
        folder: the point's.
        dense: the folder of the dense network's point, the reference; without one it is the
            point's own backbone at full width.
        sweep: that the point belongs to.
        data: the dataset's splits; images are the first of the validation split.
    """
    path = folder / TIMINGS
    if path.exists():
        return read_timings(path)
    resources, settings = sweep.resources.timing, sweep.timing
    device = resources.whole_node(1).use()
    torch.set_num_threads(resources.threads)
    dtype = getattr(torch, settings.dtype)
    bundle = read_bundle(folder / BUNDLE).to(device)
    reference = None if dense is None else read_network_bundle(dense / BUNDLE).network.to(device)
    images_NCHW = to_float(data.validation.head(settings.images).images_NCHW[:]).to(device)
    found = []
    for batch in settings.batches:
        for _ in range(settings.attempts):
            timing = time_bundle(
                bundle,
                images_NCHW,
                [batch],
                dtype=dtype,
                rounds=settings.rounds,
                reference=reference,
            )[0]
            if timing.measurement.verdict != "contaminated":
                break
        found.append(timing.on(this_device(dtype, device)))
    write_timings(found, path)
    return found


def timing_options(sweep: SweepConfig) -> dict[str, Any]:
    """Return what ``ray.remote`` is told, so that a timing has its node's cores to itself.

    All timings of a sweep run on one node, one after the other: the one with most cores of those
    that have what the timing needs.

    Raises:
        ConfigError: no living node has it.
    """
    needed = sweep.resources.timing
    fitting = [node for node in ray.nodes() if node["Alive"] and _fits(node, needed.gpus)]
    if not fitting:
        raise ConfigError(
            f"Timing needs a node with {needed.gpus} GPU(s) and a core, but none is alive."
        )
    node = max(fitting, key=lambda node: (node["Resources"]["CPU"], node["NodeID"]))
    request = needed.whole_node(node["Resources"]["CPU"])
    pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return {**request.options, "scheduling_strategy": pinned}


def _fits(node: Mapping[str, Any], gpus: float) -> bool:
    """Whether a node has a core, and so many GPUs."""
    resources = node["Resources"]
    return bool(resources.get("CPU", 0) >= 1 and resources.get("GPU", 0) >= gpus)
