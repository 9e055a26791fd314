"""Bundles made fast for inference: compiled networks, decisions included, behind one call.

Dimensions: B images, R images that a member sees.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from runtime_pruning import backbones
from runtime_pruning.cascades import CascadeExecution, CascadeMember, MemberAnswer
from runtime_pruning.cost.macs import plan_macs
from runtime_pruning.deploy.bundle import Bundle
from runtime_pruning.deploy.cascade_bundle import CascadeBundle
from runtime_pruning.deploy.reading import AnyBundle
from runtime_pruning.errors import ContractError
from runtime_pruning.executor.agreement import TOLERANCES
from runtime_pruning.executor.autotuning import measure_policy
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.network import Answered, Execution, PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy


class Deployed(Protocol):
    """What answers images on a CPU as fast as it can."""

    def execute(self, images_BCHW: Tensor) -> Answered:
        """Answer images, float in [0, 1]."""


class DeployedBundle:
    """A network under its policy; see `DeployedNetwork`.

    Args:
        bundle: network and policy.
        dtype: of weights and features.
    """

    def __init__(self, bundle: Bundle, dtype: torch.dtype = torch.float32) -> None:
        self.bundle = bundle
        self.network = deploy(bundle.network, dtype=dtype)

    def execute(self, images_BCHW: Tensor) -> Execution:
        """Answer images, float in [0, 1]."""
        return self.network.execute(images_BCHW, self.bundle.policy)


class DeployedCascade:
    """A cascade whose members are compiled: each runs on the images that are still open.

    Args:
        bundle: members, combination and chooser.
        dtype: of weights and features.
    """

    def __init__(self, bundle: CascadeBundle, dtype: torch.dtype = torch.float32) -> None:
        self.bundle = bundle
        self.networks = [deploy(member.network, dtype=dtype) for member in bundle.members]
        self._run = bundle.executor(
            [
                _member(network, member)
                for network, member in zip(self.networks, bundle.members, strict=True)
            ]
        )

    def execute(self, images_BCHW: Tensor) -> CascadeExecution:
        """Answer images, float in [0, 1]; channels are not told."""
        return self._run(images_BCHW)

    def tune(self, images_NCHW: Tensor, batches: Sequence[int]) -> None:
        """Measure in which mode members that decide for themselves pay."""
        for network, member in zip(self.networks, self.bundle.members, strict=True):
            if not isinstance(member.policy, FixedPolicy):
                measure_policy(network, images_NCHW, member.policy, batches)


def _member(network: DeployedNetwork, bundle: Bundle) -> CascadeMember:
    """Return a deployed member; one whose plan is fixed is pruned to it for good."""
    policy = bundle.policy
    if isinstance(policy, FixedPolicy):
        plan = policy.groups_L.tolist()
        return CascadeMember.static(network.static(plan), _macs_of(bundle, plan))

    def run(images_RCHW: Tensor) -> MemberAnswer:
        found = network.execute(images_RCHW, policy)
        return MemberAnswer(found.logits_BK, found.total_macs_B.numpy())

    return CascadeMember(run=run)


def _macs_of(bundle: Bundle, plan: list[int]) -> int:
    channels_1L = bundle.network.channels(torch.tensor([plan]))
    return int(plan_macs(bundle.network, channels_1L)[0])


def deploy_bundle(
    bundle: AnyBundle, *, dtype: torch.dtype = torch.float32
) -> DeployedBundle | DeployedCascade:
    """Return a bundle made fast; its weights are copied."""
    if isinstance(bundle, CascadeBundle):
        return DeployedCascade(bundle, dtype)
    return DeployedBundle(bundle, dtype)


def reference_of(bundle: CascadeBundle) -> PrunableNetwork:
    """Return the backbone that a cascade is compared with; its weights are by chance."""
    shape = bundle.image_shape
    backbone = backbones.create(
        bundle.manifest["backbone"],
        num_classes=bundle.manifest["num_classes"],
        image_shape=shape,
    )
    return trace(backbone.eval(), shape).eval()


def check_cascade(deployed: DeployedCascade, images_BCHW: Tensor, dtype: torch.dtype) -> None:
    """Hold a deployed cascade against plain PyTorch.

    Where an image is about to go on, rounding may decide: most must go as far, and all that do must
    have the answer and the MACs.

    Raises:
        ContractError: says how far it is off.
    """
    expected, found = deployed.bundle.execute(images_BCHW), deployed.execute(images_BCHW)
    alike_B = expected.sets_B == found.sets_B
    if alike_B.mean() < 0.5:
        raise ContractError(
            "A deployed cascade must run the members that plain PyTorch runs, but runs others for "
            f"{int((~alike_B).sum())} of {len(alike_B)} images."
        )
    spent_B = expected.executed_macs_B[alike_B]
    if (spent_B != found.executed_macs_B[alike_B]).any():
        raise ContractError("A deployed cascade must execute the MACs that plain PyTorch does.")
    apart_B = (expected.logits_BK.exp() - found.logits_BK.exp()).abs().amax(1)[alike_B]
    allowed = 10 * TOLERANCES[dtype]
    if not float(apart_B.max()) <= allowed:
        raise ContractError(
            "A deployed cascade must answer as plain PyTorch does, but a probability is off by "
            f"{float(apart_B.max()):.2g}, where {allowed:.2g} is allowed."
        )
