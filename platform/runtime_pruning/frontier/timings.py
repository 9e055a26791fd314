"""How fast an operating point is on a device: facts of a measurement, as they are stored.

A timing is a comparison with the best dense execution of the sweep's reference, taken side by side;
one whose clock could not be believed has a verdict and no numbers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.files import write_text


@dataclass(frozen=True, kw_only=True)
class PointTiming:
    """One operating point at one size of batch on one device.

    Attributes:
        device: key of the device, its dtype and threads among it; see `timing.device.Device`.
        fingerprint: everything that is known of the device.
        batch: images per call.
        images: how many were run, batch by batch.
        mode: of the executor that was fastest.
        kernels: that ran, compiled ones or PyTorch's.
        verdict: exactly one of faster, slower, tie, contaminated: against dense.
        reasons: why the clock could not be believed.
        macs_speedup: dense MACs over executed ones, the policy's included.
        speedup: low, value and high of dense time over the point's, with a 95 % interval; None
            when contaminated, as all that follows.
        latency_ms: of one call with so many images, decisions included, by quantile: ``p50``,
            ``p90``, ``p95`` and ``p99``.
        dense_ms: median of one call of the dense reference.
    """

    device: str
    fingerprint: dict[str, str]
    batch: int
    images: int
    mode: str
    kernels: str
    verdict: str
    reasons: tuple[str, ...] = ()
    macs_speedup: float
    speedup: tuple[float, float, float] | None = None
    latency_ms: dict[glossary.Quantile, float] | None = None
    dense_ms: float | None = None

    @property
    def realisation(self) -> float | None:
        """Measured speed-up over that of MACs; None when contaminated."""
        return None if self.speedup is None else self.speedup[1] / self.macs_speedup

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by metric name; none when contaminated."""
        if self.speedup is None or self.latency_ms is None:
            return {}
        named = {
            glossary.latency(self.device, self.batch, quantile).name: ms
            for quantile, ms in self.latency_ms.items()
        }
        low, value, high = self.speedup
        named[glossary.speedup(self.device, self.batch).name] = value
        named[glossary.speedup(self.device, self.batch, "_low").name] = low
        named[glossary.speedup(self.device, self.batch, "_high").name] = high
        return named

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Return the timing that plain JSON tells of."""
        speedup = facts.get("speedup")
        lists = {
            "reasons": tuple(facts.get("reasons", ())),
            "speedup": None if speedup is None else tuple(speedup),
        }
        return cls(**{**facts, **lists})


# Of points, by their ids.
Timings: TypeAlias = Mapping[str, Sequence[PointTiming]]


def write_timings(timings: Sequence[PointTiming], path: Path) -> None:
    """Write the timings of one point, whole or not at all."""
    write_text(path, json.dumps([asdict(timing) for timing in timings], indent=2) + "\n")


def read_timings(path: Path) -> list[PointTiming]:
    """Return what `write_timings` wrote.

    Raises:
        DataError: the file holds no timings, or those of another version.
    """
    try:
        return [PointTiming.from_facts(facts) for facts in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"No timings of this version can be read: {error!r}") from error
