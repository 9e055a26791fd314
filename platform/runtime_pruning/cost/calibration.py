"""Time the units of a network on this device, at all widths that plans can give them.

Units are timed in the order in which they run, one plan after another, so that caches are as warm
as they are in an execution. What an execution costs beyond the sum of its units is timed with them.
A machine's speed drifts by more than plans differ, so the dense execution is timed between all
these, as a yardstick: what is kept are times at the yardstick's median.

Dimensions: B images, C channels, H W pixels.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from runtime_pruning.cost.latency import FIXED, LatencyTable, Row
from runtime_pruning.cost.timed_units import (
    Plan,
    TimedNetwork,
    TimedUnit,
    covering_plans,
    network_key,
    pair_of,
)
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, Site
from runtime_pruning.timing.contamination import load_average
from runtime_pruning.timing.device import Device

# A timing counts as undisturbed if the thread ran for nearly all of it.
_SHARE, _SLACK_NS = 0.95, 20_000


class Timing(NamedTuple):
    """One timing."""

    ms: float  # in which the thread ran
    disturbed: bool  # it did not run all the time
    visit: int  # the stretch of time in which it was taken


class Timings:
    """Timings by what was timed, each against the yardstick of its own stretch of time.

    Args:
        yardstick: the work whose time tells how fast the machine is.
        synchronise: waits for a device other than the CPU, within the timing.
    """

    def __init__(
        self, yardstick: Callable[[], Any], synchronise: Callable[[], Any] | None = None
    ) -> None:
        self._yardstick = yardstick
        self._synchronise = synchronise
        self._visit = 0
        self._by_key: dict[Any, list[Timing]] = {}
        self._of_yardstick: list[Timing] = []

    def visit(self) -> None:
        """Begin a stretch of time, short enough for the machine not to change its speed."""
        self._visit += 1

    def measure_yardstick(self) -> None:
        """Time the yardstick; at least once in each visit."""
        self._of_yardstick.append(self._timed(self._yardstick))

    def time(self, key: Any, work: Callable[[], Any]) -> None:
        """Time some work once."""
        self._by_key.setdefault(key, []).append(self._timed(work))

    def _timed(self, work: Callable[[], Any]) -> Timing:
        thread, wall = time.thread_time_ns(), time.perf_counter_ns()
        work()
        if self._synchronise is not None:
            self._synchronise()
        wall = time.perf_counter_ns() - wall
        ran = time.thread_time_ns() - thread
        disturbed = self._synchronise is None and ran < _SHARE * wall - _SLACK_NS
        return Timing((ran if disturbed else wall) / 1e6, disturbed, self._visit)

    @property
    def keys(self) -> list[Any]:
        """What was timed, in the order of first times."""
        return list(self._by_key)

    def count(self, key: Any) -> int:
        """Return how often something was timed."""
        return len(self._by_key[key])

    @cached_property
    def yardstick_ms(self) -> float:
        """The yardstick's median; ask once all timings are done."""
        return _median(timing.ms for timing in _calm(self._of_yardstick))

    @cached_property
    def _speeds(self) -> dict[int, float]:
        """By visit: the yardstick's median over its time in the visit."""
        by_visit: dict[int, list[Timing]] = {}
        for timing in self._of_yardstick:
            by_visit.setdefault(timing.visit, []).append(timing)
        return {
            visit: self.yardstick_ms / _median(timing.ms for timing in _calm(timings))
            for visit, timings in by_visit.items()
        }

    def median_ms(self, key: Any) -> float:
        """Return the median of the undisturbed timings; of CPU times where there is none."""
        timings = _calm(self._by_key[key])
        return _median(timing.ms * self._speeds[timing.visit] for timing in timings)

    @property
    def disturbed(self) -> float:
        """Share of the timings that were disturbed."""
        timings = [timing for each in self._by_key.values() for timing in each]
        return sum(timing.disturbed for timing in timings) / max(len(timings), 1)


def _calm(timings: list[Timing]) -> list[Timing]:
    """Return the undisturbed timings, or all where there is none."""
    return [timing for timing in timings if not timing.disturbed] or timings


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


@torch.inference_mode()
def calibrate(
    timed: TimedNetwork,
    *,
    backbone: str,
    batches: Sequence[int] = (1,),
    passes: int = 3,
    rounds: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> LatencyTable:
    """Return the latency table of this device for a network.

    Args:
        timed: executes the network unit by unit.
        backbone: its name, for people.
        batches: images per call.
        passes: over all plans, each in an order of its own.
        rounds: per plan and pass; one more goes before.
        seed: of images, orders and plans.
        progress: show a bar.

    Raises:
        ConfigError: a number below one.
    """
    if min(*batches, passes, rounds) < 1:
        raise ConfigError(
            "`batches`, `passes` and `rounds` must each be >= 1, "
            f"but got (batches={list(batches)}, passes={passes}, rounds={rounds})."
        )
    network = timed.network
    load, rows, disturbed = load_average(), list[Row](), list[float]()
    device = timed.device
    for batch in batches:
        images_BCHW = images_for(network, batch, seed)
        shown = _Progress(f"calibrate, batch {batch}", progress)
        timings = _time_plans(timed, images_BCHW, passes, rounds, seed, shown)
        rows += timings.rows(batch, device)
        disturbed.append(timings.disturbed)
    return LatencyTable(
        rows=tuple(rows),
        device_key=device.key,
        network_key=network_key(network),
        backbone=backbone,
        num_sites=len(network.sites),
        fingerprint=device.fingerprint,
        notes={"load_average": load, "disturbed_share": max(disturbed)},
    )


class _Progress(NamedTuple):
    """Whether and how progress is shown."""

    title: str
    on: bool


class _UnitTimings(Timings):
    """Timings of units at pairs of widths, and of whole executions."""

    def __init__(
        self,
        sites: Sequence[Site],
        yardstick: Callable[[], Any],
        synchronise: Callable[[], Any] | None,
    ) -> None:
        super().__init__(yardstick, synchronise)
        self._sites = sites
        self._steps: dict[str, TimedUnit] = {}

    def round(self, steps: Sequence[TimedUnit], plan: Plan, whole: Callable[[], Any]) -> None:
        """Time the yardstick, all units under a plan, and the whole execution."""
        self.measure_yardstick()
        for step in steps:
            self._steps.setdefault(step.name, step._replace(run=_nothing))
            self.time((step.name, pair_of(step, self._sites, plan)), step.run)
        self.time(plan, whole)

    def rows(self, batch: int, device: Device) -> list[Row]:
        """Return the table's rows; the part beside the units is the median over all plans.

        It is below zero where the whole saves calls that each unit makes when it is timed alone.
        """
        keys = [key for key in self.keys if isinstance(key[0], str)]
        plans = [key for key in self.keys if not isinstance(key[0], str)]
        beside = [self.median_ms(plan) - self._sum_ms(plan) for plan in plans]
        fixed = Row(
            *(FIXED, "fixed", 0, (), (), 0, 0, batch),
            *(device.dtype, device.threads, len(plans), float(np.median(beside))),
        )
        return [*(self._row(key, batch, device) for key in keys), fixed]

    def _row(self, key: Any, batch: int, device: Device) -> Row:
        """Return what was measured of a unit at a pair of widths."""
        step = self._steps[key[0]]
        return Row(
            unit=step.name,
            kind=step.kind,
            stage=step.stage,
            input_sites=tuple(sorted(step.input.sites)),
            output_sites=tuple(sorted(step.output.sites)),
            input_width=key[1][0],
            output_width=key[1][1],
            batch=batch,
            dtype=device.dtype,
            threads=device.threads,
            samples=self.count(key),
            latency_ms=self.median_ms(key),
        )

    def _sum_ms(self, plan: Plan) -> float:
        """Return what the units of a plan cost together."""
        pairs = [(step.name, pair_of(step, self._sites, plan)) for step in self._steps.values()]
        return sum(self.median_ms(key) for key in pairs)


def _nothing() -> None:
    """Stand for a step's work where only its name and widths are kept."""


def _time_plans(
    timed: TimedNetwork,
    images_BCHW: Tensor,
    passes: int,
    rounds: int,
    seed: int,
    progress: _Progress,
) -> _UnitTimings:
    """Time all units at all widths."""
    sites = timed.network.sites
    dense = tuple(len(site.bounds) - 1 for site in sites)
    plans = covering_plans(timed.steps(images_BCHW, dense), sites, seed)
    yardstick = partial(timed.run, images_BCHW, dense)
    wait = waiting_for(timed.network)
    timings, rng = _UnitTimings(sites, yardstick, wait), random.Random(seed)
    with tqdm(total=passes * len(plans), desc=progress.title, disable=not progress.on) as bar:
        for _ in range(passes):
            for plan in rng.sample(plans, len(plans)):
                timings.visit()
                steps = timed.steps(images_BCHW, plan)
                whole = partial(timed.run, images_BCHW, plan)
                for kept in (_UnitTimings(sites, yardstick, wait), *[timings] * rounds):
                    kept.round(steps, plan, whole)
                bar.update()
    return timings


def waiting_for(network: PrunableNetwork) -> Callable[[], Any] | None:
    """Return what waits for the network's device; None on a CPU, where calls return when done."""
    device = next(network.parameters()).device
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None


def images_for(network: PrunableNetwork, batch: int, seed: int) -> Tensor:
    """Return random images where and as the network wants them."""
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *network.image_shape, generator=generator).to(like)
