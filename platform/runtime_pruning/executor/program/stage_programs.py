"""Stages bound to widths: a list of calls with their weights cut and packed, ready to repeat.

A program is made the first time that a stage runs at some widths, and kept. What it multiplies is
counted then, from the tensors that its calls meet.

Dimensions: B images, C channels, L sites.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from runtime_pruning.executor.commands.command_buffer import FreeSlots, coalesce, splits_batch
from runtime_pruning.executor.commands.instruction import State, Step
from runtime_pruning.executor.ir.fusion import separate
from runtime_pruning.executor.ir.operations import Lowered, Operation
from runtime_pruning.executor.program.binder import Binder
from runtime_pruning.executor.program.steps import Masks, masking
from runtime_pruning.network.graph import Value

Key: TypeAlias = tuple[int, ...]

FULL = -1  # as a group count: the last bound
MOST_CHAINS = 4096
MASKED: Key = (-2,)  # the key of a stage at full width whose absent channels are set to zero


@dataclass(frozen=True)
class Program:
    """A stage at real widths.

    Attributes:
        steps: calls, in order.
        macs: multiply-accumulates per image, counted at the calls.
        bound: the calls one by one; ``steps`` plays some of them together.
    """

    steps: tuple[Step, ...]
    macs: int
    bound: tuple[Step, ...]


class StagePrograms:
    """All programs of a network, made as they are needed.

    Args:
        lowered: the operations.
        bounds: channels by group count, per site.
        dtype: of weights and features.
        fused: whether to use fused calls.
    """

    def __init__(
        self,
        lowered: Lowered,
        bounds: Sequence[tuple[int, ...]],
        *,
        dtype: torch.dtype,
        fused: bool,
    ) -> None:
        self.lowered = lowered
        self.bounds = bounds
        self.relevant = tuple(_relevant_sites(stage) for stage in lowered.stages)
        self.full = tuple((FULL,) * len(sites) for sites in self.relevant)
        operations = [op for stage in lowered.stages for op in stage]
        made = [value.name for op in operations for value in op.results]
        self.slots = {name: slot for slot, name in enumerate([lowered.images, *made])}
        self._values = {
            value.name: value for ops in lowered.stages for op in ops for value in op.widths
        }
        self.images_slot = self.slots[lowered.images]
        self.logits_slot = self.slots[lowered.logits]
        self.site_slots = tuple(self.slots[value.name] for value in lowered.sources)
        self._borders = [0]
        for stage in lowered.stages:
            self._borders.append(self._borders[-1] + len(stage))
        numbers = range(len(lowered.stages))
        self.constants = _constants(lowered)
        self.widths = tuple(_deciding_sites(stage) for stage in lowered.stages)
        self.dead = tuple(self._dead(stage) for stage in numbers)
        self._live = tuple(self._live_slots(stage) for stage in numbers)
        self.binder = Binder(lowered, self.slots, dtype=dtype, fused=fused)
        self._made: dict[tuple[int, Key], Program] = {}
        self._chains: dict[Key, Program] = {}

    def new_state(self, images_BCHW: Tensor, masks: Masks | None = None) -> State:
        """Return the values of a batch that has entered and gone nowhere yet."""
        state: State = [None] * (len(self.slots) + 1)
        state[self.images_slot] = images_BCHW
        state[-1] = masks
        return state

    def key(self, stage: int, plan: Sequence[int]) -> Key:
        """Return the group counts that matter to a stage, out of a plan up to it."""
        return tuple([plan[site] for site in self.relevant[stage]])

    def run(self, stage: int, key: Key, state: State) -> int:
        """Run a stage at the widths of a key; return its MACs per image."""
        program = self._made.get((stage, key)) or self.compile(stage, key, state)
        for step in program.steps:
            step(state)
        return program.macs

    def compile(self, stage: int, key: Key, like: State) -> Program:
        """Return a stage's program at the widths of a key, made now.

        Args:
            stage: index.
            key: see `key`; or `MASKED`.
            like: a state on its way into the stage; shapes, types and layouts count, not values.
        """
        state = self.part(like, stage, torch.zeros_like)
        state[-1] = like[-1]
        program = self._made[stage, key] = self._bind(stage, key, state)
        return program

    def chain(self, plan: Key) -> Program | None:
        """Return all stages under a plan as one program, if each has run before."""
        found = self._chains.get(plan)
        if found is None:
            keys = ((stage, self.key(stage, plan)) for stage in range(len(self.relevant)))
            stages = [self._made.get(key) for key in keys]
            known = [stage for stage in stages if stage is not None]
            if len(known) < len(stages):
                return None
            bound = tuple(step for stage in known for step in stage.bound)
            found = Program(coalesce(bound), sum(stage.macs for stage in known), bound)
            if len(self._chains) >= MOST_CHAINS:
                self._chains.clear()
            self._chains[plan] = found
        return found

    def splits_batch(self, plan: Key) -> bool:
        """Whether a batch under a plan that has run is taken apart inside a compiled call."""
        chain = self.chain(plan)
        return chain is not None and splits_batch(chain.steps)

    def part(self, state: State, stage: int, take: Callable[[Tensor], Tensor]) -> State:
        """Return a state with some of the images, on its way into a stage."""
        part: State = [None] * len(state)
        for slot, constant in self._live[stage]:
            found = state[slot]
            whole = constant or not isinstance(found, Tensor)
            part[slot] = found if whole else take(found)
        return part

    def value(self, name: str) -> Value:
        """Return the value of a name."""
        return self._values[name]

    def channels(self, value: Value, plan: Sequence[int]) -> int:
        """Return how many channels a value has under a plan up to it."""
        sites = value.width.sites
        if not sites:
            return value.width.channels
        return max(self.bounds[site][plan[site]] for site in sites)

    def _bind(self, stage: int, key: Key, state: State) -> Program:
        """Bind the operations of a stage; each runs once on the state, to know what it makes."""
        masked = key == MASKED
        plan = [FULL] * len(self.bounds)
        if not masked:
            for site, groups in zip(self.relevant[stage], key, strict=True):
                plan[site] = groups
        steps: list[Step] = []
        macs = 0
        for index, operation in enumerate(self.lowered.stages[stage], self._borders[stage]):
            for part in separate(operation) if masked else (operation,):
                width = {value.name: self.channels(value, plan) for value in part.widths}
                bound = self.binder.bind(part, index, width, state)
                steps += bound.steps
                macs += bound.macs
                if masked and part.output.width.pruned:
                    steps.append(masking(self.slots[part.output.name], part.output))
                    steps[-1](state)
        steps.append(FreeSlots(tuple(self.dead[stage])))
        steps[-1](state)
        return Program(coalesce(steps), macs, tuple(steps))

    def _dead(self, stage: int) -> list[int]:
        """Return the slots that a stage reads and no later one."""
        here = range(self._borders[stage], self._borders[stage + 1])
        last = self.lowered.last_reader
        return [slot for name, slot in self.slots.items() if last.get(name, -1) in here]

    def _made_before(self, stage: int) -> list[str]:
        """Return the values that exist when a stage begins."""
        earlier = [op.output.name for ops in self.lowered.stages[:stage] for op in ops]
        return [self.lowered.images, *earlier]

    def _live_slots(self, stage: int) -> list[tuple[int, bool]]:
        """Return the slots that a stage or a later one reads, and whether each is constant."""
        last, first = self.lowered.last_reader, self._borders[stage]
        live = [name for name in self._made_before(stage) if last.get(name, -1) >= first]
        return [(self.slots[name], name in self.constants) for name in live]


def _relevant_sites(stage: tuple[Operation, ...]) -> tuple[int, ...]:
    """Return the sites whose decisions change the widths that a stage meets."""
    return tuple(sorted(frozenset[int]().union(*_deciding_sites(stage))))


def _deciding_sites(stage: tuple[Operation, ...]) -> frozenset[frozenset[int]]:
    """Return the sets of sites that decide the widths that a stage meets."""
    found = (value.width.sites for operation in stage for value in operation.widths)
    return frozenset(sites for sites in found if sites)


def _constants(lowered: Lowered) -> frozenset[str]:
    """Return the values that are the same for all images: attributes of the backbone."""
    operations = (op for stage in lowered.stages for op in stage)
    return frozenset(
        op.output.name for op in operations if op.step is not None and op.step.op == "attribute"
    )
