"""An executor taken apart into units that can be run, and timed, one by one.

Dimensions: B images, C channels, H W pixels, L sites.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from runtime_pruning.network import PrunableNetwork, Site
from runtime_pruning.network.graph import Unit, Width
from runtime_pruning.network.staged_run import StagedRun
from runtime_pruning.network.structure import structure_key
from runtime_pruning.timing.device import Device, this_device

Plan: TypeAlias = tuple[int, ...]  # groups per site
Pair: TypeAlias = tuple[int, int]  # input width, output width


class TimedUnit(NamedTuple):
    """One unit under one plan, ready to run again and again.

    Attributes:
        name: of the value that it writes.
        kind: of the unit.
        stage: decisions that are taken before it runs.
        input: width that it reads.
        output: width that it writes; of an add, width of the second part.
        run: does the work; what it returns is dropped.
    """

    name: str
    kind: str
    stage: int
    input: Width
    output: Width
    run: Callable[[], Any]


class TimedNetwork(Protocol):
    """An executor of a network that can be taken apart into units."""

    @property
    def network(self) -> PrunableNetwork:
        """The network that is executed."""
        ...

    @property
    def device(self) -> Device:
        """What the network runs on, in which precision, by which calls."""
        ...

    def steps(self, images_BCHW: Tensor, plan: Plan) -> Sequence[TimedUnit]:
        """Return the units in order; all images run the plan."""
        ...

    def run(self, images_BCHW: Tensor, plan: Plan) -> Any:
        """Execute the whole network; all images run the plan."""
        ...


class TimedSlicedNetwork:
    """The sliced execution of a `PrunableNetwork`, unit by unit.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: PrunableNetwork) -> None:
        self.network = network

    @property
    def device(self) -> Device:
        """What the network runs on, and in which precision."""
        like = next(self.network.parameters())
        return this_device(like.dtype, like.device)

    def steps(self, images_BCHW: Tensor, plan: Plan) -> Sequence[TimedUnit]:
        """Return the units in order; all images run the plan."""
        run = RecordedRun(self.network, images_BCHW)
        for groups in plan:
            run.advance(torch.full((len(images_BCHW),), groups))
        stages = [index for index, units in enumerate(self.network.graph.stages) for _ in units]
        return [
            TimedUnit(unit.output.name, unit.kind, stage, *_axes(unit), run.replay(index))
            for index, (unit, stage) in enumerate(zip(self.network.units, stages, strict=True))
        ]

    def run(self, images_BCHW: Tensor, plan: Plan) -> Any:
        """Execute the whole network; all images run the plan."""
        return self.network.run(images_BCHW, torch.tensor([plan]).expand(len(images_BCHW), -1))


class RecordedRun(StagedRun):
    """A sliced run that keeps what each unit reads, so that the unit can run again."""

    def __init__(self, network: PrunableNetwork, images_BCHW: Tensor) -> None:
        self._inputs: list[dict[str, Any]] = []
        super().__init__(network, images_BCHW, "sliced")

    def _run_unit(self, unit: Unit) -> None:
        self._inputs.append({value.name: self._values[value.name] for value in unit.inputs})
        super()._run_unit(unit)

    def replay(self, index: int) -> Callable[[], None]:
        """Return a function that runs one unit again."""
        unit, values = self._network.units[index], self._inputs[index]
        again = super()._run_unit

        def run() -> None:
            self._values.update(values)
            again(unit)

        return run


def _axes(unit: Unit) -> tuple[Width, Width]:
    """Return the two widths that a unit's time depends on."""
    if not unit.inputs:
        return Width(0), Width(0)
    source = unit.source.width
    if unit.kind in ("follow", "depthwise"):
        return source, source
    return source, unit.inputs[1].width if unit.kind == "add" else unit.output.width


def covering_plans(steps: Sequence[TimedUnit], sites: Sequence[Site], seed: int) -> list[Plan]:
    """Return plans under which each unit runs at each pair of widths that it can have."""
    groups = range(1, len(sites[0].bounds))
    plans = [
        tuple((even, odd)[site % 2] for site in range(len(sites)))
        for even, odd in product(groups, groups)
    ]
    covered = [{pair_of(step, sites, plan) for plan in plans} for step in steps]
    rng = random.Random(seed)
    for index, step in enumerate(steps):
        for pair in _pairs(step, sites):
            if pair not in covered[index]:
                plan = _plan_for(step, pair, sites, rng)
                plans.append(plan)
                for other, known in zip(steps, covered, strict=True):
                    known.add(pair_of(other, sites, plan))
    return plans


def _width(width: Width, sites: Sequence[Site], plan: Plan) -> int:
    """Return a width under a plan."""
    if not width.sites:
        return width.channels
    return max(sites[site].bounds[plan[site]] for site in width.sites)


def pair_of(step: TimedUnit, sites: Sequence[Site], plan: Plan) -> Pair:
    """Return the two widths of a unit under a plan."""
    return _width(step.input, sites, plan), _width(step.output, sites, plan)


def _pairs(step: TimedUnit, sites: Sequence[Site]) -> Iterable[Pair]:
    """Yield the pairs of widths that a unit may have, and some that it may not."""
    inputs, outputs = _options(step.input, sites), _options(step.output, sites)
    if step.input.sites and step.input.sites == step.output.sites:
        return ((width, width) for width in inputs)
    return product(inputs, outputs)


def _options(width: Width, sites: Sequence[Site]) -> list[int]:
    """Return the values that a width may take."""
    found = {bound for site in width.sites for bound in sites[site].bounds[1:]}
    return sorted(found) or [width.channels]


def _plan_for(step: TimedUnit, pair: Pair, sites: Sequence[Site], rng: random.Random) -> Plan:
    """Return a plan that gives a unit these widths, if one can; chance decides the rest."""
    plan = [rng.randint(1, len(site.bounds) - 1) for site in sites]
    for width, wanted in zip((step.input, step.output), pair, strict=True):
        for site in width.sites:
            bounds = sites[site].bounds
            plan[site] = max([1, *(g for g, bound in enumerate(bounds) if bound <= wanted)])
    return tuple(plan)


def network_key(network: PrunableNetwork) -> str:
    """Return a name for the network's structure; not for weights or groups."""
    return structure_key(network)[:12]
