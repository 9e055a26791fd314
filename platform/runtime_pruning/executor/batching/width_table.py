"""The widths that each value can have, and which of them each image of a batch has.

Dimensions: B images, L sites, K keys.
"""

import ctypes
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from runtime_pruning.executor.batching.plans import Outcome
from runtime_pruning.executor.commands.instruction import State
from runtime_pruning.executor.native import abi, library
from runtime_pruning.executor.native.abi import Counts, Decisions, Numbers
from runtime_pruning.network.graph import Value


class WidthOptions:
    """The widths that some sites can give a value.

    Args:
        bounds: channels by group count, per site.
        value: what is read or written.

    Attributes:
        sites: that decide; none where the width is always the same.
        channels: of each width, in order; a *place* is an index into it.
    """

    def __init__(self, bounds: Sequence[tuple[int, ...]], value: Value) -> None:
        self.sites = sorted(value.width.sites)
        every = {count for site in self.sites for count in bounds[site][1:]}
        self.channels = np.array(sorted(every or {value.width.channels}), dtype=np.int64)
        own = [bounds[site] for site in self.sites]
        self._counts = max(map(len, own), default=0)
        places = [
            np.searchsorted(self.channels, [*b, *b[-1:] * (self._counts - len(b))]) for b in own
        ]
        # What the addresses of a key point to; a width's place grows with it.
        self._table = np.array(places, dtype=np.int32)
        self._sites = np.array(self.sites, dtype=np.int64)

    def key(self) -> abi.WidthKey:
        """Return these widths for the compiled library; they live as long as this."""
        addresses = self._sites.ctypes.data, self._table.ctypes.data
        return abi.WidthKey(len(self.sites), self._counts, *addresses)


class WidthTable:
    """Which sites decide how wide the values are, in the order in which that is known.

    Args:
        bounds: channels by group count, per site.
        values: of the network.
    """

    def __init__(self, bounds: Sequence[tuple[int, ...]], values: Iterable[Value]) -> None:
        by_sites = {v.width.sites: WidthOptions(bounds, v) for v in values if v.width.sites}
        ordered = sorted(by_sites, key=lambda sites: (max(sites), sorted(sites)))
        self._bounds = bounds
        self._options = {sites: by_sites[sites] for sites in ordered}
        self._index = {sites: i for i, sites in enumerate(ordered)}
        last = [max(sites) for sites in ordered]
        known = [sum(site < end for site in last) for end in range(len(bounds) + 1)]
        self._known = (ctypes.c_int64 * len(known))(*known)
        self._known_at = ctypes.addressof(self._known)
        self._constant: dict[int, WidthOptions] = {}  # of values that no site decides, by channels
        table = [options.key() for options in self._options.values()]
        self._table = (abi.WidthKey * len(table))(*table)
        self._table_at = ctypes.addressof(self._table)
        self._settle = library.settle()

    def __len__(self) -> int:
        return len(self._index)

    def index(self, value: Value) -> int:
        """Return which of the keys a value has; below zero: its width is always the same."""
        return self._index.get(value.width.sites, -1)

    def options(self, value: Value) -> WidthOptions:
        """Return the widths that a value can have."""
        found = self._options.get(value.width.sites)
        if found is not None:
            return found
        channels = value.width.channels
        if channels not in self._constant:
            self._constant[channels] = WidthOptions(self._bounds, value)
        return self._constant[channels]

    def settle(self, first: int, last: int, batch: "RaggedBatch") -> None:
        """Find the places of widths that the decisions of sites ``[first, last)`` settle.

        Args:
            first: site.
            last: likewise.
            batch: holds the decisions of all sites before ``last``.
        """
        begin, end = self._known[first], self._known[last]
        if begin == end:
            return
        size = ctypes.sizeof(abi.WidthKey)
        places = batch.places + begin * batch.size * ctypes.sizeof(ctypes.c_int32)
        self._settle(
            *(self._table_at + begin * size, end - begin, batch.groups),
            *(len(self._bounds), batch.size, places),
        )

    def let_decide(self, decisions: Decisions, batch: "RaggedBatch") -> None:
        """Give a batch what its sites are decided by."""
        state = (decisions.calls, decisions.settled, *decisions.state)
        table = (batch.groups, len(self._bounds), self._table_at, self._known_at)
        batch.keepalive = abi.DecisionState(*state, *table, batch.places)
        batch.deciding = ctypes.addressof(batch.keepalive)


class RaggedBatch:
    """A batch on its way.

    Args:
        state: its values.
        counts: group counts (B, L); those that are not known yet are written here.
        keys: of the network.

    Attributes:
        counts: see above; likewise ``spent``, MACs so far, by image.
        groups: address of ``counts``; likewise ``places``, int32 (K, B), and ``macs``.
        deciding: address of an `abi.DecisionState`.
        keepalive: what that points to.
    """

    def __init__(self, state: State, counts: Counts, keys: int) -> None:
        self.state, self.counts = state, counts
        self.size = len(counts)
        self.spent = (ctypes.c_int64 * self.size)()
        self._places = (ctypes.c_int32 * self.size * keys)()
        self.groups = ctypes.addressof(counts)
        self.places = ctypes.addressof(self._places)
        self.macs = ctypes.addressof(self.spent)
        self.deciding: int | None = None
        self.keepalive: Any = None

    @cached_property
    def groups_BL(self) -> Numbers:
        """What was decided, int64; it can be written to."""
        return np.asarray(self.counts)

    @cached_property
    def macs_B(self) -> Numbers:
        """MACs so far, int64; likewise."""
        return np.asarray(self.spent)

    @cached_property
    def places_KB(self) -> Numbers:
        """Places of widths, int32."""
        return np.asarray(self._places)

    def outcome(self, logits: int) -> Outcome:
        """Return what came of it; the slot of the logits is given."""
        return Outcome(self.state[logits], self.counts, self.spent)
