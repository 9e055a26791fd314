"""How long networks of chosen widths take on this device: what a predictor of latency learns from.

A network of each configuration is cut from the backbone, deployed, and timed by turns with the
dense one. What is kept is the least time of each, and of one thread its CPU time: whatever runs
beside only ever takes more.

Dimensions: P configurations, G groups of channels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor, nn
from tqdm import tqdm

from runtime_pruning.cost.calibration import images_for
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor import deploy
from runtime_pruning.network.surgery import PrunableGroup, pruned
from runtime_pruning.network.tracing import trace
from runtime_pruning.timing.device import Device
from runtime_pruning.timing.turns import interleaved

_SPREAD = 0.6  # of a group's share of channels around its configuration's


@dataclass(frozen=True)
class WidthTimings:
    """What was measured.

    Attributes:
        widths_PG: channels kept of each group, int64.
        ms_P: of one call: its share of the dense network's time beside it, times ``dense_ms``.
        dense_ms: of the dense network, the median over all configurations.
        drift: distance between the quartiles of the dense network's times, over their median.
        device: that ran.
    """

    widths_PG: NDArray[np.int64]
    ms_P: NDArray[np.float64]
    dense_ms: float
    drift: float
    device: Device


def covering_widths(
    groups: Sequence[PrunableGroup],
    count: int,
    *,
    multiple: int = 4,
    least: float = 0.125,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return ``widths_PG`` that cover the space: whole networks from narrow to wide, groups around.

    A Latin hypercube over the network's width and over each group's distance from it: widths drawn
    for each group alone would all cost about the same. The dense network comes first.

    Args:
        groups: of a backbone.
        count: how many configurations, at least 2.
        multiple: widths are multiples of this, or whole.
        least: share of a group's channels.
        seed: of the design.
    """
    if count < 2:
        raise ConfigError(f"`count >= 2` must hold, but got {count}.")
    channels_G = np.array([group.channels for group in groups])
    drawn = qmc.LatinHypercube(d=len(groups) + 1, rng=np.random.default_rng(seed)).random(count - 1)
    level_P1, own_PG = drawn[:, :1], drawn[:, 1:]
    share_PG = (least + (1 - least) * level_P1 + _SPREAD * (own_PG - 0.5)).clip(least, 1)
    steps_PG = np.rint(share_PG * channels_G / multiple).clip(1)
    widths_PG = np.minimum(steps_PG * multiple, channels_G).astype(np.int64)
    return np.concatenate([channels_G[None].astype(np.int64), widths_PG])


def time_widths(
    backbone: nn.Module,
    image_shape: tuple[int, int, int],
    groups: Sequence[PrunableGroup],
    widths_PG: NDArray[np.int64],
    *,
    batch: int = 1,
    calls: int = 40,
    seed: int = 0,
    progress: bool = False,
) -> WidthTimings:
    """Return how long networks of these widths take, deployed in float32 on the CPU.

    Args:
        backbone: the dense one, on the CPU; its weights do not matter.
        image_shape: (C, H, W).
        groups: `prunable_groups` of it.
        widths_PG: channels kept of each group.
        batch: images per call.
        calls: timed, of each network and of the dense one between.
        seed: of the images.
        progress: show a bar.
    """
    dense = trace(backbone.eval(), image_shape, groups=1)
    images_BCHW = images_for(dense, batch, seed)
    whole = TimedDeployedNetwork(deploy(dense))
    pairs = []
    for widths_G in tqdm(widths_PG.tolist(), desc="time widths", disable=not progress):
        keep = {group.name: range(w) for group, w in zip(groups, widths_G, strict=True)}
        network = trace(pruned(backbone, image_shape, keep).backbone, image_shape, groups=1)
        pairs.append(_by_turns(whole, TimedDeployedNetwork(deploy(network)), images_BCHW, calls))
    own_P, dense_P = np.array(pairs).T
    low, dense_ms, high = np.quantile(dense_P, (0.25, 0.5, 0.75))
    return WidthTimings(
        widths_PG=widths_PG,
        ms_P=own_P / dense_P * dense_ms,
        dense_ms=float(dense_ms),
        drift=float((high - low) / dense_ms),
        device=whole.device,
    )


@torch.inference_mode()
def _by_turns(
    dense: TimedDeployedNetwork, own: TimedDeployedNetwork, images_BCHW: Tensor, calls: int
) -> tuple[float, float]:
    """Return the least milliseconds of a network's call, and of the dense one's."""
    works = {
        name: partial(timed.whole(timed.network.uniform(1)), images_BCHW)
        for name, timed in (("own", own), ("dense", dense))
    }
    for work in works.values():
        work(), work()  # compiles, and warms
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = interleaved(works, rounds=calls, least_seconds=0, clock=clock)
    return 1e3 * min(seconds["own"]), 1e3 * min(seconds["dense"])
