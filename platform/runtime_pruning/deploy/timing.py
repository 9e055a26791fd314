"""What a bundle's operating point is worth on this device: its speed against dense, measured.

Dimensions: N images, B images of a batch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.deploy.bundle import Bundle
from runtime_pruning.deploy.cascade_bundle import CascadeBundle
from runtime_pruning.deploy.deployed import DeployedCascade, check_cascade, reference_of
from runtime_pruning.deploy.reading import AnyBundle
from runtime_pruning.executor.agreement import check_policy
from runtime_pruning.executor.autotuning import check_batch, measure_policy, run_parts
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.executor.native import library
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.glossary import QUANTILES, Quantile
from runtime_pruning.network import Answered, PrunableNetwork
from runtime_pruning.timing.comparison import Measurement, measure
from runtime_pruning.timing.device import Device

FEW = 16  # images on which the modes are compared
PASSES = 3  # over all images, each batch under a clock of its own


@dataclass(frozen=True)
class BundleTiming:
    """One operating point at one size of batch.

    Attributes:
        batch: images per call.
        mode: in which the policy is fastest here, see `DeployedNetwork`; "full" where it never is
            faster than dense; "cascade" where members run one after the other.
        kernels: that ran, see `library.description`.
        macs_speedup: dense MACs over executed ones, the policy's own included.
        measurement: of all images, batch by batch, against the best dense execution.
        images: how many these were.
        latency_ms: of one batch, by quantile: what decisions spend differs between images.
    """

    batch: int
    mode: str
    kernels: str
    macs_speedup: float
    measurement: Measurement
    images: int
    latency_ms: dict[Quantile, float]

    def on(self, device: Device) -> PointTiming:
        """Return the facts that a sweep keeps, as measured on a device."""
        figures = self.measurement.figures
        return PointTiming(
            device=device.key,
            fingerprint=device.fingerprint,
            batch=self.batch,
            images=self.images,
            mode=self.mode,
            kernels=self.kernels,
            verdict=self.measurement.verdict,
            reasons=self.measurement.reasons,
            macs_speedup=self.macs_speedup,
            speedup=None if figures is None else figures.speedup,
            latency_ms=None if figures is None else self.latency_ms,
            dense_ms=(None if figures is None else figures.dense.p50_ms * self.batch / self.images),
        )

    @property
    def realisation(self) -> float | None:
        """Measured speed-up over that of MACs; None where the measurement is contaminated."""
        figures = self.measurement.figures
        return None if figures is None else figures.speedup.value / self.macs_speedup


def time_bundle(
    bundle: AnyBundle,
    images_NCHW: Tensor,
    batches: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    rounds: int = 10,
    reference: PrunableNetwork | None = None,
) -> list[BundleTiming]:
    """Time a bundle on images against a dense network, in the mode that pays.

    One timing runs all images: what a policy that looks spends differs from image to image.

    Args:
        bundle: network and policy, or a cascade.
        images_NCHW: float, in [0, 1], of the kind that the policy is to serve.
        batches: sizes of batch, each at most N.
        dtype: of weights and features.
        rounds: of the measurement, see `measure`.
        reference: the dense network; by default the bundle's own backbone at full width, or the
            one that a cascade's bundle names.

    Raises:
        ConfigError: a batch below one image or above N.
        ContractError: a mode answers otherwise than plain PyTorch; nothing is timed then.
    """
    count = len(images_NCHW)
    for batch in batches:
        check_batch(batch, count)
    if isinstance(bundle, CascadeBundle):
        return _timed_cascade(bundle, reference, images_NCHW, batches, dtype, rounds)
    deployed = deploy(bundle.network, dtype=dtype)
    check_policy(deployed, bundle.network, images_NCHW[:FEW], bundle.policy)
    dense = deployed if reference is None else deploy(reference, dtype=dtype)
    return [_timed(deployed, dense, bundle, images_NCHW, batch, rounds) for batch in batches]


def _timed(
    deployed: DeployedNetwork,
    dense: DeployedNetwork,
    bundle: Bundle,
    images_NCHW: Tensor,
    batch: int,
    rounds: int,
) -> BundleTiming:
    """Time one size of batch."""
    parts = torch.split(images_NCHW, batch)
    few = images_NCHW[: max(batch, FEW)]
    measure_policy(deployed, few, bundle.policy, (batch,))
    run: Callable[[Tensor], Answered] = partial(deployed.execute, policy=bundle.policy)
    mode = deployed.execute(parts[0], bundle.policy).mode
    return _compared(dense, run, parts, mode, rounds)


def _timed_cascade(
    bundle: CascadeBundle,
    reference: PrunableNetwork | None,
    images_NCHW: Tensor,
    batches: Sequence[int],
    dtype: torch.dtype,
    rounds: int,
) -> list[BundleTiming]:
    """Time a cascade at each size of batch."""
    network = reference_of(bundle) if reference is None else reference
    dense, cascade = deploy(network, dtype=dtype), DeployedCascade(bundle, dtype)
    check_cascade(cascade, images_NCHW[:FEW], dtype)
    cascade.tune(images_NCHW[: max(*batches, FEW)], batches)
    return [
        _compared(dense, cascade.execute, torch.split(images_NCHW, batch), "cascade", rounds)
        for batch in batches
    ]


def _compared(
    dense: DeployedNetwork,
    run: Callable[[Tensor], Answered],
    parts: Sequence[Tensor],
    mode: str,
    rounds: int,
) -> BundleTiming:
    """Time all parts of some images, dense and otherwise in turns."""
    spent = sum(int(run(part).total_macs_B.sum()) for part in parts)
    images = sum(len(part) for part in parts)
    return BundleTiming(
        batch=len(parts[0]),
        mode=mode,
        kernels=library.description(),
        macs_speedup=dense.dense_macs * images / spent,
        measurement=measure(
            partial(run_parts, dense.dense, parts), partial(run_parts, run, parts), rounds=rounds
        ),
        images=images,
        latency_ms=latency_quantiles(run, parts),
    )


def latency_quantiles(
    run: Callable[[Tensor], Any], parts: Sequence[Tensor]
) -> dict[Quantile, float]:
    """Return quantiles of the milliseconds that one batch takes, over all batches of `PASSES`.

    A last batch that is not full is left out, unless it is the only one.
    """
    full = [part for part in parts if len(part) == len(parts[0])]
    spent_ms = []
    for part in full * PASSES:
        start = time.perf_counter()
        run(part)
        spent_ms.append((time.perf_counter() - start) * 1e3)
    return {name: float(np.quantile(spent_ms, share)) for name, share in QUANTILES.items()}
