"""CUDA graphs: steps that come again are launched together, where that is faster than one by one.

A pass of few images takes as long as its kernels take to launch. `Ledger` says which steps are
captured and keeps them, `Graphs` runs them between buffers that stay where they are, and
`CudaRecorder` captures. A graph reads and writes only these buffers and the memory that all graphs
share while they run, so that graphs may be replayed in any order, one after another.

Everything that a step reads from Python is as it was at the capture.
Source: PyTorch's documentation, "CUDA semantics", section "CUDA Graphs".
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Generic, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor

from runtime_pruning.network.kernels import fastest
from runtime_pruning.network.tape import State, Step

T = TypeVar("T")
P = ParamSpec("P")
Key: TypeAlias = tuple[Hashable, ...]

MOST_GRAPHS = 64
SIGHTINGS = 3  # of steps, before they are captured: that takes as long as a dozen runs, and more
SIGHTINGS_FULL = 50  # likewise, where another graph has to go
MOST_SEEN = 4096  # steps whose sightings are counted, or whose refusal is known
WARM_UPS = 3  # runs before a capture, as PyTorch's documentation has it
SLOWER = "captured, it is no faster"


class Ledger(Generic[T]):
    """Says when something is captured; keeps the captures that were used last.

    Args:
        most: captures that are kept.

    Attributes:
        kept: the captures, the least recently used first.
        refused: why something is not captured, by its key.
    """

    def __init__(self, most: int = MOST_GRAPHS) -> None:
        self.most = most
        self.kept: OrderedDict[Key, T] = OrderedDict()
        self.refused: dict[Key, str] = {}
        self._seen: dict[Key, int] = {}

    def find(self, key: Key) -> T | None:
        """Return a capture, if there is one; it counts as used."""
        found = self.kept.get(key)
        if found is not None:
            self.kept.move_to_end(key)
        return found

    def due(self, key: Key) -> bool:
        """Count a sighting; return whether it is time for a capture."""
        if key in self.refused:
            return False
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[key] = self._seen.get(key, 0) + 1
        return self._seen[key] >= (SIGHTINGS if len(self.kept) < self.most else SIGHTINGS_FULL)

    def keep(self, key: Key, capture: T) -> None:
        """Keep a capture; drop the least recently used of too many."""
        self._seen.pop(key, None)
        self.kept[key] = capture
        if len(self.kept) > self.most:
            self.kept.popitem(last=False)

    def refuse(self, key: Key, reason: str) -> None:
        """Never find something due again, as long as its refusal is remembered."""
        self._seen.pop(key, None)
        if len(self.refused) >= MOST_SEEN:
            self.refused.clear()
        self.refused[key] = reason


class Recorder(Protocol):
    """Makes work repeatable; `CudaRecorder`, or in tests a plain call."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what does the work again on the same tensors; RuntimeError where it cannot."""
        ...

    def pays(self, captured: Callable[[], object], plain: Callable[[], object]) -> bool:
        """Whether the captured call takes less time."""
        ...

    def busy(self) -> bool:
        """Whether the caller is recording already: then nothing is captured or replayed."""
        ...


class Piece(NamedTuple):
    """Steps that run together.

    Attributes:
        steps: in order.
        reads: slots that hold what they read, all from before.
        writes: slots that hold what others read of what they wrote.
    """

    steps: Sequence[Step]
    reads: Sequence[int]
    writes: Sequence[int]

    def run(self, state: State) -> None:
        """Run step by step."""
        for step in self.steps:
            step(state)


class Graph(NamedTuple):
    """A captured piece: the buffers that it reads and writes, by slot."""

    reads: list[tuple[int, Tensor]]
    writes: list[tuple[int, Tensor]]
    replay: Callable[[], None]

    def run(self, state: State) -> None:
        """Do what the piece does; slots that nobody reads any more are left as they are."""
        for slot, buffer in self.reads:
            if state[slot] is not buffer:
                buffer.copy_(state[slot])
        self.replay()
        for slot, buffer in self.writes:
            state[slot] = buffer


class Graphs:
    """Runs the pieces of one network, captured where that pays; calls come from one stream.

    Args:
        recorder: captures.
        most: captures that are kept.

    Attributes:
        ledger: what is captured; ``ledger.refused`` has the reason of each piece that is not.
    """

    def __init__(self, recorder: Recorder, most: int = MOST_GRAPHS) -> None:
        self.ledger: Ledger[Graph] = Ledger(most)
        self._recorder = recorder
        self._buffers: WeakValueDictionary[Key, Tensor] = WeakValueDictionary()
        self._on = True

    def run(self, name: Hashable, piece: Piece, state: State) -> None:
        """Run a piece; what it writes is good until a piece writes the same slots again.

        Args:
            name: of the piece; the forms of what it reads are added.
            piece: its steps must not change.
            state: holds what it reads, and then what it writes.
        """
        if not self._on or self._recorder.busy():
            piece.run(state)
            return
        key = (name, *[_form(state[slot]) for slot in piece.reads])
        graph = self.ledger.find(key)
        if graph is not None:
            graph.run(state)
            return
        before = list(state)
        piece.run(state)
        if self.ledger.due(key):
            self._capture(key, piece, before, state)

    def without(self, call: Callable[P, T]) -> Callable[P, T]:
        """Return the call, nothing captured or replayed in it."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            self._on = False
            try:
                return call(*args, **kwargs)
            finally:
                self._on = True

        return run

    def _capture(self, key: Key, piece: Piece, before: State, state: State) -> None:
        """Capture a piece that has just run; keep the graph if it is faster."""
        values = [before[slot] for slot in piece.reads] + [state[slot] for slot in piece.writes]
        if not all(isinstance(value, Tensor) for value in values):
            self.ledger.refuse(key, "it reads or writes something that is no tensor")
            return
        for slot in piece.writes:
            # A step may have written in place: what runs below must not write there once more.
            state[slot] = state[slot].clone()
        try:
            graph = self._record(piece, before, state)
        except RuntimeError as error:
            # A capture that fails fails again when it ends; what came first tells why.
            self.ledger.refuse(key, str(error.__context__ or error))
            return
        captured, plain = (partial(_on_a_copy, run, before) for run in (graph.run, piece.run))
        if self._recorder.pays(captured, plain):
            self.ledger.keep(key, graph)
        else:
            self.ledger.refuse(key, SLOWER)

    def _record(self, piece: Piece, before: State, after: State) -> Graph:
        """Return a piece, captured between buffers."""
        reads = [(slot, self._buffer(slot, before[slot])) for slot in piece.reads]
        writes = [(slot, self._buffer(slot, after[slot])) for slot in piece.writes]
        for slot, buffer in reads:
            buffer.copy_(before[slot])

        def work() -> None:
            own: State = [None] * len(before)
            for slot, buffer in reads:
                own[slot] = buffer
            piece.run(own)
            for slot, buffer in writes:
                buffer.copy_(own[slot])

        return Graph(reads, writes, self._recorder.record(work))

    def _buffer(self, slot: int, like: Tensor) -> Tensor:
        """Return the one buffer of a slot for values of a form."""
        key = (slot, _form(like))
        found = self._buffers.get(key)
        if found is None:
            found = self._buffers[key] = torch.empty_like(like)
        return found


def _form(value: object) -> Key:
    """Return what tells values apart for which a piece must be captured anew."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    return (type(value).__name__,)


def _on_a_copy(run: Callable[[State], None], state: State) -> None:
    """Run on a state that is dropped."""
    run(list(state))


class CudaRecorder:
    """Captures work as CUDA graphs that share their memory.

    Args:
        device: where the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._alive: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the replay of a graph of the work.

        Raises:
            RuntimeError: the work waits for the device, or does something else that no graph can.
        """
        graph, caller = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        # PyTorch lets go of a pool with its last graph, and then refuses its handle.
        handle = next((other.pool() for other in self._alive), torch.cuda.graph_pool_handle())
        self._stream.wait_stream(caller)
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    work()
                # The calls of other threads are none of our business.
                with torch.cuda.graph(
                    graph, handle, self._stream, capture_error_mode="thread_local"
                ):
                    work()
        except RuntimeError:
            self._alive.clear()  # nobody promises anything of a pool after a failure: take another
            raise
        finally:
            caller.wait_stream(self._stream)
        self._alive.add(graph)
        return graph.replay

    def pays(self, captured: Callable[[], object], plain: Callable[[], object]) -> bool:
        """Whether the captured call takes less time until the device is done."""
        wait = partial(torch.cuda.synchronize, self._device)
        return fastest([plain, captured], wait=wait) is captured

    def busy(self) -> bool:
        """Whether the caller captures a graph itself."""
        return torch.cuda.is_current_stream_capturing()
