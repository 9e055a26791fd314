"""Does a deployed network answer as the network does? Asked before it is timed or shipped.

Dimensions: B images, L sites, K classes.
"""

import copy

import torch
from torch import Tensor

from runtime_pruning.errors import ContractError
from runtime_pruning.executor.deployed import DeployedNetwork
from runtime_pruning.network.policies import Policy
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import SubsetRun

# How far logits may be off, as a share of the largest: what rounding does to a deep network.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


@torch.inference_mode()
def check_modes(
    deployed: DeployedNetwork, network: PrunableNetwork, images_BCHW: Tensor, plans_BL: Tensor
) -> None:
    """Run plans in every mode, and hold logits and MACs against plain PyTorch.

    Args:
        deployed: of ``network``.
        network: in evaluation mode, in float32 or float64.
        images_BCHW: in the network's type, float, in [0, 1].
        plans_BL: groups per image and site.

    Raises:
        ContractError: names the mode, and by how much it is off.
    """
    expected = network.run(images_BCHW, plans_BL)
    allowed = _allowed(network, images_BCHW, plans_BL, expected.logits_BK, deployed.dtype)
    for mode in deployed.modes:
        found = deployed.run(images_BCHW, plans_BL, mode=mode)
        where = f"Mode {mode!r} ({_type_of(deployed)}, batch {len(images_BCHW)})"
        _check_logits(found.logits_BK, expected.logits_BK, where, allowed)
        executed_B, expected_B = found.executed_macs_B, expected.executed_macs_B
        if mode != "dense" and not torch.equal(executed_B, expected_B):
            raise ContractError(
                f"{where} must execute the MACs that plain PyTorch does, {expected_B.tolist()}, "
                f"but executes {executed_B.tolist()}."
            )


@torch.inference_mode()
def check_policy(
    deployed: DeployedNetwork, network: PrunableNetwork, images_BCHW: Tensor, policy: Policy
) -> None:
    """Run a policy in every mode; its plans, and their logits, must be those of plain PyTorch.

    Where two choices are worth nearly the same, rounding may decide: most images must have their
    plan, and all that have it must have its logits.

    Args:
        deployed: of ``network``.
        network: in evaluation mode.
        images_BCHW: float, in [0, 1].
        policy: that decides.

    Raises:
        ContractError: names the mode, and by how much it is off.
    """
    if isinstance(policy, SubsetPolicy):
        return _check_subsets(deployed, network, images_BCHW, policy)
    expected = network.execute(images_BCHW, policy)
    plans_BL = expected.groups_BL
    check_modes(deployed, network, images_BCHW, plans_BL)
    allowed = _allowed(network, images_BCHW, plans_BL, expected.logits_BK, deployed.dtype)
    for mode in deployed.modes:
        found = deployed.execute(images_BCHW, policy, mode=mode)
        where = f"Mode {mode!r} ({_type_of(deployed)}, batch {len(images_BCHW)}), with its policy,"
        alike_B = (found.groups_BL == plans_BL).all(1)
        if int(alike_B.sum()) < 0.5 * len(alike_B):
            raise ContractError(
                f"{where} must choose the plans that plain PyTorch does, but chooses others for "
                f"{int((~alike_B).sum())} of {len(alike_B)} images."
            )
        if alike_B.any():
            _check_logits(found.logits_BK[alike_B], expected.logits_BK[alike_B], where, allowed)


def _check_subsets(
    deployed: DeployedNetwork, network: PrunableNetwork, images_BCHW: Tensor, policy: SubsetPolicy
) -> None:
    """Do what `check_policy` does, in the modes that subsets of channels have."""
    expected = SubsetRun(network, images_BCHW, policy, "masked").finish()
    gathered = SubsetRun(network, images_BCHW, policy, "sliced").finish()
    macs_B, logits_BK = gathered.executed_macs_B, expected.logits_BK
    _check_logits(gathered.logits_BK, logits_BK, "Gathered rows", TOLERANCES[torch.float32])
    allowed = TOLERANCES[deployed.dtype]
    if deployed.dtype.itemsize <= 2:
        half = copy.deepcopy(network).to(deployed.dtype)
        rounded = SubsetRun(half, images_BCHW.to(deployed.dtype), policy, "masked").finish()
        allowed = max(allowed, 4 * _deviation(rounded.logits_BK, logits_BK))
    for mode in deployed.subsets.modes:
        found = deployed.subsets.execute(images_BCHW, policy, mode)
        where = f"Mode {mode!r} ({_type_of(deployed)}, batch {len(images_BCHW)})"
        alike_B = torch.stack(
            [(a == b).all(1) for a, b in zip(found.kept, expected.kept, strict=True)]
        ).all(0)
        # In 16 bits a saliency near its threshold often falls on the other side, at some site.
        if deployed.dtype.itemsize > 2 and int(alike_B.sum()) < 0.5 * len(alike_B):
            raise ContractError(
                f"{where} must keep the channels that plain PyTorch does, but keeps others for "
                f"{int((~alike_B).sum())} of {len(alike_B)} images."
            )
        if not alike_B.any():
            continue
        _check_logits(found.logits_BK[alike_B], logits_BK[alike_B], where, allowed)
        executed_B = found.executed_macs_B
        if mode != "masked" and not torch.equal(executed_B[alike_B], macs_B[alike_B]):
            raise ContractError(
                f"{where} must execute the MACs that plain PyTorch does, "
                f"{macs_B[alike_B].tolist()}, but executes {executed_B[alike_B].tolist()}."
            )


def _allowed(
    network: PrunableNetwork,
    images_BCHW: Tensor,
    plans_BL: Tensor,
    expected_BK: Tensor,
    dtype: torch.dtype,
) -> float:
    """Return how far off logits may be; in 16 bits, some more than plain PyTorch's own are."""
    least = TOLERANCES[dtype]
    if dtype.itemsize > 2:
        return least
    rounded = copy.deepcopy(network).to(dtype).run(images_BCHW.to(dtype), plans_BL)
    return max(least, 4 * _deviation(rounded.logits_BK, expected_BK))


def _check_logits(found_BK: Tensor, expected_BK: Tensor, where: str, allowed: float) -> None:
    """Raise unless logits agree."""
    deviation = _deviation(found_BK, expected_BK)
    if not deviation <= allowed:
        raise ContractError(
            f"{where} must give the logits of plain PyTorch, but is off by {deviation:.2g} of the "
            f"largest, where {allowed:.2g} is allowed."
        )


def _deviation(found_BK: Tensor, expected_BK: Tensor) -> float:
    """Return the largest difference, as a share of the largest expected logit."""
    scale = expected_BK.double().abs().max().clamp(min=1e-3)
    return float((found_BK.double() - expected_BK.double()).abs().max() / scale)


def _type_of(deployed: DeployedNetwork) -> str:
    return str(deployed.dtype).removeprefix("torch.")
