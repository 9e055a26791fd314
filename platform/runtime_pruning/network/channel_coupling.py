"""Which channels may change places: the threads that run through a backbone's values.

A *thread* is the content of one channel, carried from value to value without being mixed with
others: by per-channel steps, by residual adds (which tie two threads into one), by shortcuts that
pad channels. Threads that run through the same values can change places in all of them at once,
and the backbone's function stays as it is.

Dimensions: C channels of a value, K threads of a block.
"""

import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from runtime_pruning.network.admission import shared_modules
from runtime_pruning.network.graph import FxCall, Unit
from runtime_pruning.network.traced import TracedNetwork

# Threads that may change places: where they lie (K) in each value that they run through, by name.
CoupledChannels: TypeAlias = dict[str, Tensor]


def coupled_channels(network: TracedNetwork) -> tuple[CoupledChannels, ...]:
    """Return the blocks of exchangeable channels that hold at least two."""
    threads = _Threads(network)
    members: dict[tuple[str, ...], list[list[int]]] = defaultdict(list)
    for places in threads.free():
        members[tuple(name for name, _ in places)].append([channel for _, channel in places])
    return tuple(
        dict(zip(names, torch.tensor(sorted(channels_KV)).T, strict=True))
        for names, channels_KV in members.items()
        if len(channels_KV) > 1
    )


class _Threads:
    """Follows each channel through the units of a network. Tied threads have one root."""

    def __init__(self, network: TracedNetwork) -> None:
        self._network = network
        self._parents: list[int] = []
        self._pinned: list[int] = []  # threads that stay where they are
        self._values: dict[str, list[int]] = {}  # a thread per channel
        graph = network.graph
        steps = [s for unit in graph.units for s in (unit.head, *unit.followers) if s is not None]
        paths = [str(step.target) for step in steps if step.op in ("module", "attribute")]
        self._shared = shared_modules(network.backbone, paths)
        self._values[graph.images] = self._pin(self._new(network.image_shape[0]))
        for unit in graph.units:
            sources = [self._values[value.name] for value in unit.inputs]
            out = self._follow(unit, sources)
            if len(out) != unit.output.width.channels:
                for source in sources:
                    self._pin(source)
                out = self._pin(self._new(unit.output.width.channels))
            if self._holds_shared(unit):
                self._pin(out)
            self._values[unit.output.name] = out
        self._pin(self._values[graph.logits])

    def free(self) -> list[list[tuple[str, int]]]:
        """Return, for each thread that may move, the values and channels that it runs through."""
        places: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for name, threads_C in self._values.items():
            for channel, thread in enumerate(threads_C):
                places[self._root(thread)].append((name, channel))
        pinned = {self._root(thread) for thread in self._pinned}
        return [
            found
            for root, found in places.items()
            if root not in pinned and len({name for name, _ in found}) == len(found)
        ]

    def _follow(self, unit: Unit, sources: list[list[int]]) -> list[int]:
        """Return the threads of a unit's output."""
        channels = unit.output.width.channels
        if unit.kind in ("follow", "depthwise"):
            return sources[0]
        if unit.kind in ("convolution", "linear"):
            if self._mixes_in_order(unit) or len(sources[0]) != unit.source.width.channels:
                self._pin(sources[0])
                return self._pin(self._new(channels))
            return self._new(channels)
        alike = len({(v.factor, v.width.channels) for v in unit.inputs}) == 1
        if unit.kind == "add" and alike:
            for one, other in zip(*sources, strict=True):
                self._parents[self._root(one)] = self._root(other)
            return sources[0]
        if unit.kind == "opaque" and unit.head is not None and len(sources) == 1:
            if _strides(unit.head):
                return sources[0]
            if (pads := _padded_channels(unit.head)) is not None:
                return [*self._new(pads[0]), *sources[0], *self._new(pads[1])]
        for source in sources:
            self._pin(source)
        return self._pin(self._new(channels))

    def _holds_shared(self, unit: Unit) -> bool:
        """Whether a unit holds parameters per channel that another holds, too."""
        steps = [step for step in (unit.head, *unit.followers) if step is not None]
        modules = (self._network.module(s.target) for s in steps if s.op == "module")
        return any(module in self._shared for module in modules)

    def _mixes_in_order(self, unit: Unit) -> bool:
        """Whether the places of a layer's channels matter.

        They do where it is grouped, not along dimension 1, or where its weights are shared.
        """
        module = self._network.head_module(unit)
        if module in self._shared:
            return True
        if unit.kind == "convolution":
            return int(module.groups) > 1
        return not unit.mac_per_input and unit.mac_scale != module.in_features

    def _new(self, count: int) -> list[int]:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return list(range(first, first + count))

    def _pin(self, threads: Sequence[int]) -> list[int]:
        self._pinned += threads
        return list(threads)

    def _root(self, thread: int) -> int:
        while self._parents[thread] != thread:
            self._parents[thread] = thread = self._parents[self._parents[thread]]
        return thread


def _strides(head: FxCall) -> bool:
    """Whether an operation keeps some pixels of all images and channels."""
    if head.target is not operator.getitem or not isinstance(head.args[1], tuple):
        return False
    whole: Any = slice(None, None, None)
    kept = head.args[1]
    return len(kept) <= 4 and kept[:2] == (whole, whole) and all(type(k) is slice for k in kept)


def _padded_channels(head: FxCall) -> tuple[int, int] | None:
    """Return how many constant channels an operation puts before and after; None if it does not."""
    if head.target is not functional.pad or head.kwargs.get("mode") != "constant":
        return None
    pads = tuple(head.args[1])
    if len(pads) != 6 or min(pads[4:]) < 0:
        return None
    return int(pads[4]), int(pads[5])
