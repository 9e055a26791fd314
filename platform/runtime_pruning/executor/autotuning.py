"""Measure which mode pays: at random plans, or for one policy with its decisions.

Dimensions: B images, C channels, H W pixels, N images, L sites.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.deployed import DeployedNetwork
from runtime_pruning.executor.mode_table import ModeTable
from runtime_pruning.executor.plan_sampling import plans_near
from runtime_pruning.network.policies import Policy
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.timing.turns import compared

_BASELINE = "baseline"


def measure_modes(
    deployed: DeployedNetwork,
    batches: Sequence[int] = (1, 4, 16, 64),
    fractions: Sequence[float] = (0.95, 0.75, 0.5, 0.25),
    *,
    rounds: int = 5,
    least_seconds: float = 0.02,
    seed: int = 0,
) -> ModeTable:
    """Time each mode against dense at random plans; ``auto`` goes by it from here on.

    Args:
        deployed: its ``mode_table`` is set.
        batches: sizes to measure at.
        fractions: of the dense MACs; those below the smallest plan count as that plan. At 1 all
            images share a plan.
        rounds: readings per mode, interleaved; more of those that may be the fastest.
        least_seconds: per reading.
        seed: of images and plans.
    """
    generator = torch.Generator().manual_seed(seed)
    wait = _wait_for(deployed)
    ratios = {}
    for batch in batches:
        shape = (batch, *deployed.network.image_shape)
        images_BCHW = torch.rand(shape, generator=generator).to(deployed.engine.device)
        for fraction in fractions:
            plans_BL = torch.tensor(random_plans(deployed, fraction, batch, generator))
            calls: dict[str, Callable[[], object]] = {
                mode: partial(deployed.run, images_BCHW, plans_BL, mode=mode)
                for mode in (("image", "dense") if batch == 1 else deployed.modes)
            }
            calls[_BASELINE] = partial(deployed.dense, images_BCHW)
            found = compared(
                calls, _BASELINE, rounds=rounds, least_seconds=least_seconds, wait=wait
            )
            del found[_BASELINE]
            ratios[batch, fraction] = found
    deployed.mode_table = ModeTable(torch.get_num_threads(), ratios)
    return deployed.mode_table


def measure_policy(
    deployed: DeployedNetwork,
    images_NCHW: Tensor,
    policy: Policy,
    batches: Sequence[int],
    *,
    rounds: int = 5,
    least_seconds: float = 0.02,
) -> ModeTable:
    """Time a policy, its decisions included, in each mode against dense.

    ``auto`` goes by it from here on wherever this policy is executed.

    Args:
        deployed: its ``policy_tables`` get the policy's.
        images_NCHW: float, in [0, 1], of the kind that the policy is to serve: what it spends
            depends on them.
        policy: as it will be passed to `execute`.
        batches: sizes to measure at, each at most N.
        rounds: readings per mode, interleaved; more of those that may be the fastest.
        least_seconds: per reading.

    Raises:
        ConfigError: a batch below one image or above N.
    """
    count, threads = len(images_NCHW), torch.get_num_threads()
    known = deployed.policy_tables.get(policy)
    ratios = dict(known.ratios) if known is not None and known.threads == threads else {}
    for batch in batches:
        check_batch(batch, count)
        parts = torch.split(images_NCHW, batch)
        modes = deployed.modes
        if batch == 1:
            modes = ("image",) if deployed.engine.ragged is None else ("image", "ragged")
        subsets = isinstance(policy, SubsetPolicy)
        calls: dict[str, Callable[[], object]] = {
            mode: partial(run_parts, partial(deployed.execute, policy=policy, mode=mode), parts)
            for mode in (deployed.subsets.modes if subsets else modes)
        }
        calls["full"] = partial(run_parts, deployed.dense, parts)
        found = compared(
            calls, "full", rounds=rounds, least_seconds=least_seconds, wait=_wait_for(deployed)
        )
        if subsets:
            del found["full"]  # it is another function: saliencies scale channels
        ratios[batch, 1.0] = found
    table = deployed.policy_tables[policy] = ModeTable(threads, ratios)
    return table


def random_plans(
    deployed: DeployedNetwork, fraction: float, batch: int, generator: torch.Generator
) -> list[tuple[int, ...]]:
    """Return random plans, one per image, whose MACs are about a fraction of the dense ones."""
    return plans_near(
        deployed.macs.fraction,
        sites=deployed.engine.sites,
        groups=deployed.network.groups,
        fraction=fraction,
        batch=batch,
        generator=generator,
    )


def _wait_for(deployed: DeployedNetwork) -> Callable[[], None] | None:
    """Return what waits for the device; None on a CPU, where calls return when they are done."""
    device = deployed.engine.device
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None


def check_batch(batch: int, images: int) -> None:
    """Raise unless a batch can be cut from so many images."""
    if not 1 <= batch <= images:
        raise ConfigError(f"`1 <= batch <= images` must hold, but got {batch} and {images}.")


def run_parts(run: Callable[[Tensor], object], parts: Sequence[Tensor]) -> None:
    """Run all parts of some images."""
    for part in parts:
        run(part)
