"""A bundle: a folder that holds one operating point, ready to run, in typed files.

``manifest.json`` says what it is (backbone and what it computes, the channels that surgery has kept
of it, image shape, groups, policy kind, schema version, a checksum per file and one of its own),
``network.safetensors`` and ``policy.safetensors`` hold the tensors. Nothing is pickled, so reading
a bundle runs no code of its author; and no bit of it can change unseen.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.config import build_config
from runtime_pruning.deploy.sealed import check_files, read_sealed, sha256_of, write_sealed
from runtime_pruning.errors import ConfigError, ContractError, DataError
from runtime_pruning.files import save_tensors
from runtime_pruning.network import Execution, PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, Policy
from runtime_pruning.network.saliency import SaliencyBranch, SubsetPolicy
from runtime_pruning.network.structure import structure_key
from runtime_pruning.network.surgery import kept_channels, rebuild_pruned
from runtime_pruning.registry import Registry

SCHEMA = 4
MANIFEST, NETWORK, POLICY = "manifest.json", "network.safetensors", "policy.safetensors"
Settings = dict[str, Any]
Tensors = dict[str, Tensor]
KindT = TypeVar("KindT")


@dataclass(frozen=True)
class PolicyKind:
    """How one type of policy is written to a bundle and read back."""

    policy_type: type[Any]
    dump: Callable[[Any], tuple[Settings, Tensors]]
    load: Callable[[Settings, Tensors], Policy]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a bundle's folder holds."""

    network: PrunableNetwork
    policy: Policy
    manifest: Mapping[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H and W of the images that it takes."""
        return self.network.image_shape

    @property
    def device(self) -> torch.device:
        """Where it takes images."""
        return next(self.network.parameters()).device

    @property
    def num_sites(self) -> int:
        """L, of a record's channels."""
        return len(self.network.sites)

    def to(self, device: str | torch.device) -> "Bundle":
        """Move the weights, and return this bundle."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def execute(self, images_BCHW: Tensor) -> Execution:
        """Answer images, float in [0, 1], in plain PyTorch."""
        return self.network.execute(images_BCHW, self.policy, mode="sliced")


policy_kinds: Registry[PolicyKind] = Registry("policy kind", "runtime_pruning.policy_kinds")


def _dump_decision(policy: DecisionPolicy) -> tuple[Settings, Tensors]:
    settings = {"penalty": policy.penalty, "network": asdict(policy.network.config)}
    return settings, policy.network.state_dict()


def _load_decision(settings: Settings, tensors: Tensors) -> Policy:
    network = DecisionNetwork(build_config(DecisionConfig, settings["network"], where="Bundle"))
    network.load_state_dict(tensors)
    return DecisionPolicy(network, penalty=settings["penalty"])


def _dump_fixed(policy: FixedPolicy) -> tuple[Settings, Tensors]:
    return {"groups": [int(groups) for groups in policy.groups_L]}, {}


def _load_fixed(settings: Settings, tensors: Tensors) -> Policy:
    return FixedPolicy(settings["groups"])


policy_kinds.register("decision-network")(
    PolicyKind(DecisionPolicy, _dump_decision, _load_decision)
)


def _dump_subset(policy: SubsetPolicy) -> tuple[Settings, Tensors]:
    branches = [policy.branch(site) for site in range(len(policy.branches))]
    shapes = [[*branch.squeeze.weight.shape, branch.expand.out_features] for branch in branches]
    return {"name": policy.name, "shapes": shapes, "most": branches[0].most}, policy.state_dict()


def _load_subset(settings: Settings, tensors: Tensors) -> Policy:
    branches = [
        SaliencyBranch(inputs, outputs, hidden=hidden, most=settings["most"])
        for hidden, inputs, outputs in settings["shapes"]
    ]
    policy = SubsetPolicy(branches, settings["name"])
    policy.load_state_dict(tensors)
    return policy.eval()


policy_kinds.register("salient-channels")(PolicyKind(SubsetPolicy, _dump_subset, _load_subset))
policy_kinds.register("fixed-width")(PolicyKind(FixedPolicy, _dump_fixed, _load_fixed))


def write_bundle(
    folder: Path, network: PrunableNetwork, policy: Policy, *, backbone: str, align: int
) -> None:
    """Write ``network`` and ``policy`` to ``folder``, which is created.

    Args:
        folder: where to; files in it are overwritten.
        network: with the weights and batch-norm statistics that the policy was measured with.
        policy: of a type that a registered policy kind writes.
        backbone: the registered name that builds the network anew.
        align: the channel alignment that the network was traced with.

    Raises:
        ContractError: no policy kind is registered for the policy's type.
    """
    kind = kind_of(policy_kinds, policy, "policy", lambda known: known.policy_type)
    settings, tensors = policy_kinds.get(kind).dump(policy)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(network.backbone.state_dict(), folder / NETWORK)
    save_tensors(tensors, folder / POLICY)
    write_manifest(
        folder,
        {
            "schema": SCHEMA,
            "backbone": backbone,
            "image_shape": list(network.image_shape),
            "num_classes": network.num_classes,
            "groups": network.groups,
            "traced_groups": network.graph.groups,
            "align": align,
            "streams": network.graph.streams,
            **({"kept": kept} if (kept := kept_channels(network.backbone)) else {}),
            "policy": {"kind": kind, **settings},
            "structure": structure_key(network),
            "torch": torch.__version__,
            "files": {name: sha256_of(folder / name) for name in (NETWORK, POLICY)},
        },
    )


def read_network_bundle(folder: Path) -> Bundle:
    """Return what `write_bundle` wrote, in evaluation mode.

    Raises:
        DataError: the folder is no bundle, is of another schema, or anything in it is damaged; or
            the backbone that is registered now is another than the one that was bundled.
        UnknownNameError: its backbone or its kind of policy is registered nowhere.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest["files"])
    shape = tuple(manifest["image_shape"])
    backbone = backbones.create(
        manifest["backbone"], num_classes=manifest["num_classes"], image_shape=shape
    )
    if kept := manifest.get("kept"):
        backbone = _after_surgery(backbone, shape, kept)
    network = trace(
        backbone,
        shape,
        groups=manifest["traced_groups"],
        align=manifest["align"],
        streams=manifest["streams"],
    )
    if manifest["groups"] != network.groups:
        network = network.regroup(manifest["groups"], manifest["align"])
    _load_weights(network, folder / NETWORK, manifest)
    settings = dict(manifest["policy"])
    kind = policy_kinds.get(settings.pop("kind"))
    policy = kind.load(settings, load_file(folder / POLICY))
    return Bundle(network=network.eval(), policy=policy, manifest=manifest)


def _after_surgery(backbone: nn.Module, shape: tuple[int, ...], kept: Settings) -> nn.Module:
    """Return the backbone without the channels that were removed before it was bundled.

    Raises:
        DataError: it has no such channels: its code has changed since.
    """
    channels, height, width = shape
    try:
        return rebuild_pruned(backbone, (channels, height, width), kept)
    except ConfigError as error:
        raise DataError(f"The backbone is not the one that was bundled: {error}") from error


def _load_weights(network: PrunableNetwork, path: Path, manifest: Settings) -> None:
    """Load weights into the backbone that they were trained in.

    Raises:
        DataError: the backbone's code has changed since.
    """
    message = f"The backbone {manifest['backbone']!r} is not the one that was bundled: "
    structure = structure_key(network)
    # Another version of PyTorch may word the same structure otherwise.
    if manifest["torch"] == torch.__version__ and manifest["structure"] != structure:
        raise DataError(
            f"{message}it computes {structure}, and {manifest['structure']} is in the manifest."
        )
    try:
        network.load_backbone(load_file(path))
    except (RuntimeError, AttributeError) as error:
        raise DataError(f"{message}{' '.join(str(error).split())}") from error


def write_manifest(folder: Path, facts: Settings) -> None:
    """Write the manifest with a checksum over all its facts."""
    write_sealed(folder / MANIFEST, facts)


def read_manifest(folder: Path) -> Settings:
    """Return what a bundle's manifest says, its own checksum verified and left out.

    Raises:
        DataError: no manifest, one of another schema, or one of which any bit has changed.
    """
    return read_sealed(folder / MANIFEST, schema=SCHEMA, what="A bundle")


def kind_of(
    kinds: Registry[KindT], value: object, what: str, written: Callable[[KindT], type]
) -> str:
    """Return the name of the registered kind that writes a value of this type.

    Args:
        kinds: that there are.
        value: to be written.
        what: the value is: a policy, a chooser.
        written: returns the type that a kind writes.

    Raises:
        ContractError: no kind is registered for the type.
    """
    for name in sorted(kinds):
        if type(value) is written(kinds.get(name)):
            return name
    raise ContractError(
        f"A {what} that is recorded needs a registered {what} kind to write it, but "
        f"{type(value).__name__} has none."
    )
