"""What stands for a trial's report while a method is tried: it measures, records, and may kill."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime_pruning.datasets import ImageDataset
from runtime_pruning.errors import ContractError
from runtime_pruning.frontier.records import Record
from runtime_pruning.methods import Effort, KnownPoint
from runtime_pruning.methods.recording import measure
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import Policy


class Killed(BaseException):
    """Stands for the kill of the process: no method catches it."""


@dataclass(frozen=True)
class RecordedPoint:
    """One point as it was reported.

    Attributes:
        validation: its record.
        claimed_macs: analytic MACs per image, as the method says.
        network: that ran it; None where the point was made of several.
    """

    validation: Record
    claimed_macs: float | None
    network: PrunableNetwork | None


@dataclass
class Recorder:
    """A `Report` that measures on the true splits and may be killed.

    Attributes:
        data: with held-out splits that can be read.
        folder: of the states that the method saves.
        kill_at: point at whose report the process is killed; None: never.
        recorded: whether that point is recorded before.
    """

    data: ImageDataset
    folder: Path
    kill_at: int | None = None
    recorded: bool = True
    points: list[RecordedPoint] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path | None:
        """What the method saved with the last point."""
        saved = self.folder / f"state-{len(self.points) - 1}"
        return saved if saved.is_dir() else None

    def __call__(
        self,
        policy: Policy,
        network: PrunableNetwork,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Measure and record a point."""
        if not self._is_last(recorded=False):
            record, macs = measure(network, policy, self.data.validation, 256)
            kept = copy.deepcopy(network) if save_state is None else network
            self._record(RecordedPoint(record, macs, kept), save_state)
        self._die_if_last()

    def measure(self, policy: Policy, network: PrunableNetwork) -> KnownPoint:
        """Return a policy's facts."""
        content = self.data.content_hash()
        record, macs = measure(network, policy, self.data.validation, 256, content=content)
        learned_from, _ = measure(network, policy, self.data.policy, 256, content=content)
        return KnownPoint(
            validation=record,
            policy=learned_from,
            groups=network.groups,
            write_bundle=lambda folder: None,
            analytic_macs_per_image=macs,
        )

    def known(
        self,
        point: KnownPoint,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Record a point whose facts are known."""
        if not self._is_last(recorded=False):
            self._record(
                RecordedPoint(point.validation, point.analytic_macs_per_image, None), save_state
            )
        self._die_if_last()

    def infeasible(self, reason: str) -> None:
        """Keep why a point is missing."""
        if not reason.strip():
            raise ContractError("Why a point is missing must be said, but got an empty reason.")
        self.reasons.append(reason)

    def _record(self, point: RecordedPoint, save_state: Callable[[Path], None] | None) -> None:
        self.points.append(point)
        if save_state is not None:
            save_state(self.folder / f"state-{len(self.points) - 1}")

    def _is_last(self, *, recorded: bool) -> bool:
        """Whether the process dies at this report, and whether before it is recorded."""
        return self.kill_at == len(self.points) and self.recorded is recorded

    def _die_if_last(self) -> None:
        if self._is_last(recorded=False):
            raise Killed
        if self.recorded and self.kill_at == len(self.points) - 1:
            raise Killed
