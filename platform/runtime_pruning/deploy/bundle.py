"""A bundle: a folder that holds one operating point, ready to run, in typed files.

``manifest.json`` says what it is (backbone, image shape, groups, policy kind, schema version, a
checksum per file), ``network.safetensors`` and ``policy.safetensors`` hold the tensors. Nothing is
pickled, so reading a bundle runs no code of its author.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.config import build_config
from runtime_pruning.errors import ContractError, DataError
from runtime_pruning.files import save_tensors
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import CascadePolicy, FixedPolicy, Policy
from runtime_pruning.registry import Registry

SCHEMA = 1
Settings = dict[str, Any]
Tensors = dict[str, Tensor]


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


def _dump_cascade(policy: CascadePolicy) -> tuple[Settings, Tensors]:
    names = ("groups", "sites", "threshold")
    return {name: getattr(policy, name) for name in names}, {}


def _load_cascade(settings: Settings, tensors: Tensors) -> Policy:
    return CascadePolicy(**settings)


policy_kinds.register("cascade")(PolicyKind(CascadePolicy, _dump_cascade, _load_cascade))
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
    kind = _kind_of(policy)
    settings, tensors = policy_kinds.get(kind).dump(policy)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(network.backbone.state_dict(), folder / "network.safetensors")
    save_tensors(tensors, folder / "policy.safetensors")
    manifest = {
        "schema": SCHEMA,
        "backbone": backbone,
        "image_shape": list(network.image_shape),
        "num_classes": network.num_classes,
        "groups": network.groups,
        "align": align,
        "streams": network.graph.streams,
        "second_look": network.second_look,
        "policy": {"kind": kind, **settings},
        "sha256": {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def read_bundle(folder: Path) -> Bundle:
    """Return what `write_bundle` wrote, in evaluation mode.

    Raises:
        DataError: the folder is no bundle, is of another schema, or a file is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(f"A bundle holds a manifest.json, but {str(folder)!r} has none.")
    manifest = json.loads(path.read_text())
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"`schema == {SCHEMA}` must hold, but got {manifest.get('schema')!r}.")
    for name, expected in manifest["sha256"].items():
        if _sha256(folder / name) != expected:
            raise DataError(f"The bundle's file {name!r} is damaged: its checksum differs.")
    backbone = backbones.create(
        manifest["backbone"],
        num_classes=manifest["num_classes"],
        image_shape=tuple(manifest["image_shape"]),
    )
    network = trace(
        backbone,
        tuple(manifest["image_shape"]),
        groups=manifest["groups"],
        align=manifest["align"],
        streams=manifest.get("streams", True),  # bundles from before there was a choice
    )
    network.load_backbone(load_file(folder / "network.safetensors"))
    if manifest.get("second_look", False):
        network = network.with_second_look()
    settings = dict(manifest["policy"])
    kind = policy_kinds.get(settings.pop("kind"))
    policy = kind.load(settings, load_file(folder / "policy.safetensors"))
    return Bundle(network=network.eval(), policy=policy, manifest=manifest)


def _kind_of(policy: Policy) -> str:
    for name in sorted(policy_kinds):
        if type(policy) is policy_kinds.get(name).policy_type:
            return name
    raise ContractError(
        f"A policy that is recorded needs a registered policy kind to write it, but "
        f"{type(policy).__name__} has none."
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
