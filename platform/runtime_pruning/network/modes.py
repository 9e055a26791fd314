"""Ways to run a batch whose images have unlike plans.

Each takes a `Decider` and returns an `Outcome`. Which one is fastest depends on the batch, the
plans and the machine; what they return does not, but for the MACs of `run_dense`.

Dimensions: B images, C channels, L sites, F features, K classes, N images of a part.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.network import native
from runtime_pruning.network.binding import Mask, Masks
from runtime_pruning.network.execution import Told
from runtime_pruning.network.kernels import pooled
from runtime_pruning.network.native import Counts, Decisions
from runtime_pruning.network.policies import Chooser
from runtime_pruning.network.programs import FULL, MASKED, Programs
from runtime_pruning.network.tape import State

Plan = tuple[int, ...]


class Outcome(NamedTuple):
    """What came of a batch.

    Attributes:
        logits_BK: class scores.
        plans: group counts (B, L).
        macs: of the backbone, per image.
    """

    logits_BK: Tensor
    plans: Told
    macs: Told

    @classmethod
    def alike(cls, logits_BK: Tensor, plan: Plan, macs: int) -> "Outcome":
        """Return the outcome of images that share a plan."""
        size = logits_BK.shape[0]
        return cls(logits_BK, [plan] * size, [macs] * size)


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Return outcomes of parts of a batch, in order, as one."""
    parts = list(outcomes)
    if len(parts) == 1:
        return parts[0]
    return Outcome(
        torch.cat([part.logits_BK for part in parts]),
        np.concatenate([np.asarray(part.plans) for part in parts]),
        np.concatenate([np.asarray(part.macs) for part in parts]),
    )


class Decider(Protocol):
    """Decides a site for the whole batch; features are made only where they are looked at."""

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return the group count of each image."""
        ...


class Planned:
    """Plans that are known beforehand.

    Before a pass the caches hold little of Python: each call of numpy or PyTorch takes 10 to 60
    microseconds, as much as some layers take. So plans are read once, those of several images by a
    compiled call.

    Args:
        groups_BL: int64, on the CPU; copied.
        most: the largest count.

    Attributes:
        size: images.
        counts: group counts (B, L), if a compiled call read them.
        alike: whether all images have the same plan.

    Raises:
        ConfigError: no images, or a count out of range.
    """

    def __init__(self, groups_BL: Tensor, most: int) -> None:
        self._groups_BL, self._most = groups_BL, most
        self.size, sites = groups_BL.shape
        taken = native.take_plans(groups_BL, most) if self.size > 1 else None
        self.counts: Counts | None = None
        if taken is None:
            self.rows = rows = list(map(tuple, groups_BL.tolist()))
            fit = rows != [] and min(map(min, rows)) >= 1 and max(map(max, rows)) <= most
            self.alike = rows[1:] == rows[:-1]
        else:
            self.counts, fit, self.alike = taken
        if not fit:
            wrong = [plan for plan in self.rows if min(plan) < 1 or max(plan) > most]
            raise ConfigError(
                f"Plans of {sites} counts in [1, {most}] are needed, but got {(*wrong, ())[0]}."
            )

    @cached_property
    def rows(self) -> list[Plan]:
        """The plan of each image."""
        return list(map(tuple, self.counts or ()))

    @property
    def first(self) -> Plan:
        """The plan of the first image."""
        return self.rows[0] if self.counts is None else tuple(self.counts[0])

    def part(self, first: int, last: int, sites: int) -> "Planned":
        """Return the plans of images ``[first, last)``, for so many first sites."""
        return Planned(self._groups_BL[first:last, :sites], self._most)

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return the site's column."""
        return [row[site] for row in self.rows]


@dataclass(frozen=True)
class Asking:
    """Asks a chooser, and checks what it says.

    Attributes:
        chooser: of as many images as the batch has.
        size: images in the batch.
        groups: largest count.
        look: how the chooser decides for one image from a feature map itself, if it can.
    """

    chooser: Chooser
    size: int
    groups: int

    @property
    def look(self) -> Callable[[int, Tensor], int | None] | None:
        """Return None where features have to be pooled for the chooser."""
        return getattr(self.chooser, "choose_from", None)

    @property
    def compiled(self) -> Decisions | None:
        """Return what makes the decisions between compiled calls, if the chooser has that."""
        return getattr(self.chooser, "compiled", None)

    @property
    def settled(self) -> int:
        """Return for how many of the first sites the chooser says one group, whatever it sees."""
        return getattr(self.chooser, "settled", 0)

    def __call__(self, site: int, features: Callable[[], Tensor]) -> Sequence[int]:
        """Return what the chooser says.

        Raises:
            ConfigError: not one count per image, or a count out of range.
        """
        counts: list[int] = self.chooser.choose(site, features()).tolist()
        if len(counts) != self.size or min(counts) < 1 or max(counts) > self.groups:
            raise ConfigError(
                f"{self.size} counts in [1, {self.groups}] are needed at site {site}, "
                f"but got {counts}."
            )
        return counts


def features_of(programs: Programs, site: int, state: State) -> Tensor:
    """Return ``features_BF``, float32: the pooled input of a site; absent channels are 0."""
    most = programs.lowered.sources[site].width.channels
    return pooled(state[programs.site_slots[site]], most)


def run_uniform(programs: Programs, images_BCHW: Tensor, plan: Plan) -> tuple[Tensor, int]:
    """Return ``logits_BK`` of images that share a plan, and the MACs of each."""
    state = programs.new_state(images_BCHW)
    chain = programs.chain(plan)
    if chain is not None:
        for step in chain.steps:
            step(state)
        return state[programs.logits_slot], chain.macs
    macs = sum(
        programs.run(stage, programs.key(stage, plan), state) for stage in range(len(plan) + 1)
    )
    return state[programs.logits_slot], macs


def run_alone(programs: Programs, image_1CHW: Tensor, decide: Asking, sites: int) -> Outcome:
    """Run one image, deciding as it goes."""
    state = programs.new_state(image_1CHW)
    plan: list[int] = []
    macs = programs.run(0, (), state)
    look = decide.look
    for site in range(sites):
        groups = None if look is None else look(site, state[programs.site_slots[site]])
        if groups is None:
            (groups,) = decide(site, partial(features_of, programs, site, state))
        plan.append(groups)
        macs += programs.run(site + 1, programs.key(site + 1, plan), state)
    return Outcome(state[programs.logits_slot], [plan], [macs])


def run_dense(programs: Programs, images_BCHW: Tensor, decide: Decider, sites: int) -> Outcome:
    """Compute everything; set absent channels to zero wherever they are written."""
    masks: Masks = {}
    state = programs.new_state(images_BCHW, masks)
    columns: list[Sequence[int]] = []
    macs = programs.run(0, MASKED, state)
    for site in range(sites):
        columns.append(decide(site, partial(features_of, programs, site, state)))
        for deciding in programs.widths[site + 1]:
            if deciding not in masks:
                masks[deciding] = _present(programs, deciding, columns, images_BCHW.device)
        macs += programs.run(site + 1, MASKED, state)
    plans = list(zip(*columns, strict=True))
    return Outcome(state[programs.logits_slot], plans, [macs] * len(plans))


def _present(
    programs: Programs, sites: frozenset[int], columns: list[Sequence[int]], device: torch.device
) -> Mask:
    """Return what is present of a value whose width these sites decide."""
    whole = max(programs.bounds[site][FULL] for site in sites)
    counts = [
        max(programs.bounds[site][groups] for site, groups in zip(sites, row, strict=True))
        for row in zip(*(columns[site] for site in sites), strict=True)
    ]
    if min(counts) == whole:
        return Mask(whole, None)
    counts_B = torch.tensor(counts)
    channels = counts[0] if min(counts) == max(counts) else counts_B
    return Mask(channels, (torch.arange(whole) < counts_B[:, None]).to(device))


# Prefix


def run_planned_prefix(programs: Programs, images_BCHW: Tensor, plans: list[Plan]) -> Outcome:
    """Sort the batch by plan, so that all parts are views; follow each part to its end."""
    order = sorted(range(len(plans)), key=plans.__getitem__)
    ordered = [plans[image] for image in order]
    if ordered[0] == ordered[-1]:
        logits_BK, macs = run_uniform(programs, images_BCHW, plans[0])
        return Outcome.alike(logits_BK, plans[0], macs)
    rows_B = torch.tensor(order, device=images_BCHW.device)
    state = programs.new_state(gathered(images_BCHW, rows_B))
    walk = _Walk(programs, ordered)
    walk.descend(0, 0, len(order), state, 0)
    logits_BK = torch.empty_like(walk.logits[0].new_empty(len(order), walk.logits[0].shape[1]))
    logits_BK[rows_B] = torch.cat(walk.logits)
    macs_of = dict(zip(order, walk.macs, strict=True))
    return Outcome(logits_BK, plans, [macs_of[image] for image in range(len(order))])


@dataclass
class _Walk:
    """Goes down the tree of plans, depth first: a part stays in the cache while it runs."""

    programs: Programs
    plans: list[Plan]  # sorted
    logits: list[Tensor] = field(default_factory=list)
    macs: list[int] = field(default_factory=list)

    def descend(self, stage: int, first: int, last: int, state: State, spent: int) -> None:
        """Run images ``[first, last)``, which share their plan up to a stage, to the end."""
        plan = self.plans[first]
        while True:
            spent += self.programs.run(stage, self.programs.key(stage, plan), state)
            if stage == len(plan):
                self.logits.append(state[self.programs.logits_slot])
                self.macs += [spent] * (last - first)
                return
            if self.plans[last - 1][stage] != plan[stage]:
                break
            stage += 1
        start = first
        while start < last:
            end = start
            while end < last and self.plans[end][stage] == self.plans[start][stage]:
                end += 1
            part = self.programs.part(
                state,
                stage + 1,
                partial(torch.narrow, dim=0, start=start - first, length=end - start),
            )
            self.descend(stage + 1, start, end, part, spent)
            start = end


@dataclass
class _Part:
    """Images that have shared all decisions so far."""

    rows: list[int]
    state: State
    plan: Plan = ()
    macs: int = 0


def run_prefix(programs: Programs, images_BCHW: Tensor, decide: Decider, sites: int) -> Outcome:
    """Run all parts from site to site, splitting each where its images part."""
    size = images_BCHW.shape[0]
    parts = [_Part(list(range(size)), programs.new_state(images_BCHW))]
    for stage in range(sites + 1):
        if stage:
            column = decide(
                stage - 1, partial(_gathered_features, programs, stage - 1, parts, size)
            )
            parts = [child for part in parts for child in _split(programs, part, stage, column)]
        for part in parts:
            part.macs += programs.run(stage, programs.key(stage, part.plan), part.state)
    first = parts[0].state[programs.logits_slot]
    logits_BK = first.new_empty(size, first.shape[1])
    plans: list[Plan] = [()] * size
    macs = [0] * size
    for part in parts:
        logits_BK[torch.tensor(part.rows)] = part.state[programs.logits_slot]
        for row in part.rows:
            plans[row], macs[row] = part.plan, part.macs
    return Outcome(logits_BK, plans, macs)


def _gathered_features(programs: Programs, site: int, parts: list[_Part], size: int) -> Tensor:
    """Return ``features_BF`` of all parts, in the order of the batch."""
    if len(parts) == 1:
        return features_of(programs, site, parts[0].state)
    pieces = [features_of(programs, site, part.state) for part in parts]
    features_BF = pieces[0].new_empty(size, pieces[0].shape[1])
    rows = torch.tensor([row for part in parts for row in part.rows], device=features_BF.device)
    features_BF[rows] = torch.cat(pieces)
    return features_BF


def _split(programs: Programs, part: _Part, stage: int, column: Sequence[int]) -> list[_Part]:
    """Return the parts of a part that a decision makes."""
    places: dict[int, list[int]] = {}
    for place, row in enumerate(part.rows):
        places.setdefault(column[row], []).append(place)
    if len(places) == 1:
        (groups,) = places
        part.plan = (*part.plan, groups)
        return [part]
    children = []
    for groups, own in places.items():
        index = torch.tensor(own)
        state = programs.part(part.state, stage, partial(gathered, rows_N=index))
        rows = [part.rows[place] for place in own]
        children.append(_Part(rows, state, (*part.plan, groups), part.macs))
    return children


def gathered(tensor: Tensor, rows_N: Tensor) -> Tensor:
    """Return some images, in the layout that they had."""
    rows_N = rows_N.to(tensor.device)
    if tensor.ndim == 4 and tensor.stride(1) == 1:  # channels last, perhaps not all of them
        return tensor.permute(0, 2, 3, 1).index_select(0, rows_N).permute(0, 3, 1, 2)
    return tensor.index_select(0, rows_N)
