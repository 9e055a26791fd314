"""Ways to run a batch whose images have unlike plans.

Each takes a `Decider` and returns an `Outcome`. Which one is fastest depends on the batch, the
plans and the machine; what they return does not, but for the MACs of `run_dense`.

Dimensions: B images, C channels, L sites, F features, K classes, N images of a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from runtime_pruning.executor.batching.gathering import gathered
from runtime_pruning.executor.batching.plans import Decider, Outcome, Plan
from runtime_pruning.executor.batching.uniform import features_of, run_uniform
from runtime_pruning.executor.commands.instruction import State
from runtime_pruning.executor.program.stage_programs import StagePrograms

# Prefix


def run_planned_prefix(programs: StagePrograms, images_BCHW: Tensor, plans: list[Plan]) -> Outcome:
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

    programs: StagePrograms
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


def run_prefix(
    programs: StagePrograms, images_BCHW: Tensor, decide: Decider, sites: int
) -> Outcome:
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


def _gathered_features(programs: StagePrograms, site: int, parts: list[_Part], size: int) -> Tensor:
    """Return ``features_BF`` of all parts, in the order of the batch."""
    if len(parts) == 1:
        return features_of(programs, site, parts[0].state)
    pieces = [features_of(programs, site, part.state) for part in parts]
    features_BF = pieces[0].new_empty(size, pieces[0].shape[1])
    rows = torch.tensor([row for part in parts for row in part.rows], device=features_BF.device)
    features_BF[rows] = torch.cat(pieces)
    return features_BF


def _split(programs: StagePrograms, part: _Part, stage: int, column: Sequence[int]) -> list[_Part]:
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
