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
from runtime_pruning.executor.agreement import check_policy
from runtime_pruning.executor.autotuning import check_batch, measure_policy, run_parts
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.executor.native import library
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.glossary import QUANTILES, Quantile
from runtime_pruning.network import PrunableNetwork
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
            faster than dense.
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
    bundle: Bundle,
    images_NCHW: Tensor,
    batches: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    rounds: int = 10,
    reference: PrunableNetwork | None = None,
) -> list[BundleTiming]:
    """Time a bundle's policy on images against a dense network, in the mode that pays.

    One timing runs all images: what a policy that looks spends differs from image to image.

    Args:
        bundle: network and policy.
        images_NCHW: float, in [0, 1], of the kind that the policy is to serve.
        batches: sizes of batch, each at most N.
        dtype: of weights and features.
        rounds: of the measurement, see `measure`.
        reference: the dense network; the bundle's own backbone at full width by default.

    Raises:
        ConfigError: a batch below one image or above N.
        ContractError: a mode answers otherwise than plain PyTorch; nothing is timed then.
    """
    count = len(images_NCHW)
    for batch in batches:
        check_batch(batch, count)
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
    executions = [deployed.execute(part, bundle.policy) for part in parts]
    spent = sum(int(execution.total_macs_B.sum()) for execution in executions)
    run: Callable[[Tensor], Any] = partial(deployed.execute, policy=bundle.policy)
    return BundleTiming(
        batch=batch,
        mode=executions[0].mode,
        kernels=library.description(),
        macs_speedup=dense.dense_macs * len(images_NCHW) / spent,
        measurement=measure(
            partial(run_parts, dense.dense, parts), partial(run_parts, run, parts), rounds=rounds
        ),
        images=len(images_NCHW),
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
