"""What a bundle's operating point is worth on this device: its speed against dense, measured.

Dimensions: N images, B images of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime_pruning.deploy.bundle import Bundle
from runtime_pruning.executor.agreement import check_policy
from runtime_pruning.executor.autotuning import check_batch, measure_policy, run_parts
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.executor.native import library
from runtime_pruning.timing.comparison import Measurement, measure

FEW = 16  # images on which the modes are compared


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
    """

    batch: int
    mode: str
    kernels: str
    macs_speedup: float
    measurement: Measurement

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
) -> list[BundleTiming]:
    """Time a bundle's policy on images against its backbone at full width, in the mode that pays.

    One timing runs all images: what a policy that looks spends differs from image to image.

    Args:
        bundle: network and policy.
        images_NCHW: float, in [0, 1], of the kind that the policy is to serve.
        batches: sizes of batch, each at most N.
        dtype: of weights and features.
        rounds: of the measurement, see `measure`.

    Raises:
        ConfigError: a batch below one image or above N.
        ContractError: a mode answers otherwise than plain PyTorch; nothing is timed then.
    """
    count = len(images_NCHW)
    for batch in batches:
        check_batch(batch, count)
    deployed = deploy(bundle.network, dtype=dtype)
    check_policy(deployed, bundle.network, images_NCHW[:FEW], bundle.policy)
    return [_timed(deployed, bundle, images_NCHW, batch, rounds) for batch in batches]


def _timed(
    deployed: DeployedNetwork, bundle: Bundle, images_NCHW: Tensor, batch: int, rounds: int
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
        macs_speedup=deployed.dense_macs * len(images_NCHW) / spent,
        measurement=measure(
            partial(run_parts, deployed.dense, parts), partial(run_parts, run, parts), rounds=rounds
        ),
    )
