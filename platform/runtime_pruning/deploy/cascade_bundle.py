"""The bundle of a cascade: its members' bundles, how their answers are combined, and who decides.

``manifest.json`` names the members' folders, each a bundle of its own, and holds a checksum of each
member's manifest, which holds those of its files; ``cascade.safetensors`` holds temperatures,
weights and the chooser's tensors.

Dimensions: B images, R images that a member sees, M members, S sets of members, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pruning_envs.cascade_table import Pool
from runtime_pruning.cascades import (
    CascadeExecution,
    CascadeExecutor,
    CascadeMember,
    Chooser,
    Combination,
    MemberAnswer,
    QChooser,
    QNetwork,
    RegressionChooser,
    ThresholdChooser,
)
from runtime_pruning.deploy.bundle import (
    MANIFEST,
    SCHEMA,
    Bundle,
    Settings,
    Tensors,
    kind_of,
    read_manifest,
    read_network_bundle,
    write_manifest,
)
from runtime_pruning.deploy.sealed import check_files, sha256_of
from runtime_pruning.errors import ContractError
from runtime_pruning.files import save_tensors
from runtime_pruning.network import Answered
from runtime_pruning.registry import Registry

TENSORS, CASCADE = "cascade.safetensors", "cascade"
_COMBINED = ("temperatures_M", "weights_SM")


@dataclass(frozen=True)
class ChooserKind:
    """How one type of chooser is written to a bundle and read back."""

    chooser_type: type[Any]
    dump: Callable[[Any], tuple[Settings, Tensors]]
    load: Callable[[Settings, Tensors], Chooser]


chooser_kinds: Registry[ChooserKind] = Registry("chooser kind", "runtime_pruning.chooser_kinds")


def _dump_threshold(chooser: ThresholdChooser) -> tuple[Settings, Tensors]:
    return {"order": list(chooser.order), "thresholds": list(chooser.thresholds)}, {}


def _load_threshold(settings: Settings, tensors: Tensors) -> Chooser:
    return ThresholdChooser(tuple(settings["order"]), tuple(settings["thresholds"]))


_FITTED = ("means_SF", "scales_SF", "coefficients_SMP")


def _dump_regression(chooser: RegressionChooser) -> tuple[Settings, Tensors]:
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(getattr(chooser, name))) for name in _FITTED
    }
    return {"penalty": chooser.penalty}, tensors


def _load_regression(settings: Settings, tensors: Tensors) -> Chooser:
    fitted: Settings = {name: tensors[name].numpy() for name in _FITTED}
    return RegressionChooser(**settings, **fitted)


def _dump_values(chooser: QChooser) -> tuple[Settings, Tensors]:
    features, *hidden = chooser.network.widths
    actions = chooser.network.advantage.out_features
    network = {"features": features, "hidden": hidden, "actions": actions}
    return {"penalty": chooser.penalty, "network": network}, chooser.network.state_dict()


def _load_values(settings: Settings, tensors: Tensors) -> Chooser:
    network = QNetwork(**settings["network"])
    network.load_state_dict(tensors)
    return QChooser(network.eval(), settings["penalty"])


for _name, _kind in (
    ("threshold", ChooserKind(ThresholdChooser, _dump_threshold, _load_threshold)),
    ("regression", ChooserKind(RegressionChooser, _dump_regression, _load_regression)),
    ("dqn", ChooserKind(QChooser, _dump_values, _load_values)),
):
    chooser_kinds.register(_name)(_kind)


@dataclass(frozen=True, kw_only=True)
class CascadeBundle:
    """What the folder of a cascade's bundle holds; it answers as any `Bundle` does."""

    members: tuple[Bundle, ...]
    combination: Combination
    chooser: Chooser
    manifest: Mapping[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H and W of the images that it takes."""
        return self.members[0].image_shape

    @property
    def device(self) -> torch.device:
        """Where it takes images; decisions are taken on the CPU."""
        return self.members[0].device

    @property
    def num_sites(self) -> int:
        """L, of all members."""
        return sum(member.num_sites for member in self.members)

    def to(self, device: str | torch.device) -> "CascadeBundle":
        """Move the members' weights, and return this bundle."""
        for member in self.members:
            member.to(device)
        return self

    def execute(self, images_BCHW: Tensor) -> CascadeExecution:
        """Answer images, float in [0, 1], in plain PyTorch."""
        return self._executor(images_BCHW)

    def executor(self, members: Sequence[CascadeMember]) -> CascadeExecutor:
        """Return this cascade with members that run otherwise, such as deployed ones."""
        return CascadeExecutor(
            members, self.combination, self.chooser, num_classes=self.manifest["num_classes"]
        )

    @cached_property
    def _executor(self) -> CascadeExecutor:
        members = [
            CascadeMember(run=partial(_answer, member.execute), sites=member.num_sites)
            for member in self.members
        ]
        return self.executor(members)


def _answer(execute: Callable[[Tensor], Answered], images_RCHW: Tensor) -> MemberAnswer:
    """Return what a member answers, with what it has cost."""
    found = execute(images_RCHW)
    return MemberAnswer(
        found.logits_BK, found.total_macs_B.cpu().numpy(), found.channels_BL.cpu().numpy()
    )


def write_cascade_bundle(
    folder: Path,
    members: Sequence[Callable[[Path], None]],
    combination: Combination,
    chooser: Chooser,
    *,
    backbone: str,
) -> None:
    """Write a cascade to ``folder``, which is created.

    Args:
        folder: where to; files in it are overwritten.
        members: each writes a member's bundle to a folder, in the combination's order.
        combination: how answers are combined.
        chooser: of a type that a registered chooser kind writes.
        backbone: registered name of what it is compared with when it is timed.

    Raises:
        ContractError: no chooser kind is registered for the chooser's type, or a member is not the
            bundle of a network.
    """
    kind = kind_of(chooser_kinds, chooser, "chooser", lambda known: known.chooser_type)
    settings, tensors = chooser_kinds.get(kind).dump(chooser)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"member-{number}" for number in range(len(members))]
    for name, write in zip(names, members, strict=True):
        write(folder / name)
    inner = [read_manifest(folder / name) for name in names]
    if any(facts.get("kind") == CASCADE for facts in inner):
        raise ContractError("A member of a cascade must be a network, but one is a cascade.")
    combined = {name: torch.from_numpy(getattr(combination, name).copy()) for name in _COMBINED}
    save_tensors({**tensors, **combined}, folder / TENSORS)
    files = [TENSORS, *(f"{name}/{MANIFEST}" for name in names)]
    write_manifest(
        folder,
        {
            "schema": SCHEMA,
            "kind": CASCADE,
            "backbone": backbone,
            "image_shape": inner[0]["image_shape"],
            "num_classes": inner[0]["num_classes"],
            "members": names,
            "pool": combination.pool,
            "chooser": {"kind": kind, **settings},
            "torch": torch.__version__,
            "files": {name: sha256_of(folder / name) for name in files},
        },
    )


def read_cascade_bundle(folder: Path) -> CascadeBundle:
    """Return what `write_cascade_bundle` wrote; see `read_bundle`."""
    manifest = read_manifest(folder)
    check_files(folder, manifest["files"])
    tensors = load_file(folder / TENSORS)
    temperatures_M, weights_SM = (tensors.pop(name).numpy() for name in _COMBINED)
    settings = dict(manifest["chooser"])
    kind, pool = chooser_kinds.get(settings.pop("kind")), manifest["pool"]
    checked_pool: Pool = pool
    return CascadeBundle(
        members=tuple(read_network_bundle(folder / name) for name in manifest["members"]),
        combination=Combination(
            temperatures_M=temperatures_M, weights_SM=weights_SM, pool=checked_pool
        ),
        chooser=kind.load(settings, tensors),
        manifest=manifest,
    )
