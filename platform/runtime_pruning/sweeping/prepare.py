"""The network that all trials start from: trained once, found again by a hash of what made it."""

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.grouping import order_channels
from runtime_pruning.network.training import TrainConfig, train
from runtime_pruning.sweeping.checks import Material

# Counts changes to what preparation does with the same settings.
RECIPE = 1


class Prepared(NamedTuple):
    """Two states of one backbone, both in evaluation mode."""

    dense: PrunableNetwork  # trained at full width only: what losses are measured against
    network: PrunableNetwork  # channels ordered, trained to run at any width
    key: str  # hash of all that made them


def prepare(material: Material, cache: Path) -> Prepared:
    """Return the prepared network, training it unless ``cache`` holds it already.

    An interrupted training goes on from its last epoch. The cache is keyed by the initial weights
    and every setting of the preparation, so nothing stale is ever found.
    """
    key = preparation_key(material)
    folder = cache / key
    dense, network = copy.deepcopy(material.network), copy.deepcopy(material.network)
    if not (folder / "manifest.json").is_file():
        _train_into(folder, material)
    dense.load_backbone(load_file(folder / "dense.safetensors"))
    network.load_backbone(load_file(folder / "network.safetensors"))
    return Prepared(dense=dense.eval(), network=network.eval(), key=key)


def preparation_key(material: Material) -> str:
    """Return a hash of everything that the prepared weights depend on."""
    digest = hashlib.sha256()
    digest.update(json.dumps(_settings(material), sort_keys=True).encode())
    for name, tensor in sorted(material.network.backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _settings(material: Material) -> dict[str, Any]:
    sweep = material.sweep
    content = material.data.info.content
    return {
        "backbone": sweep.backbone,
        "dataset": sweep.dataset,
        "training_images": len(material.data.training),
        "groups": material.network.groups,
        "align": sweep.align,
        "seed": sweep.seed,
        "prepare": asdict(sweep.prepare),
        "torch": torch.__version__,
        "recipe": RECIPE,
        **({"content": content} if content else {}),
    }


def _train_into(folder: Path, material: Material) -> None:
    """Train both states and put them into ``folder``, which appears whole or not at all."""
    work = folder.with_suffix(".partial")
    work.mkdir(parents=True, exist_ok=True)
    use_gpu = material.sweep.resources.gpus > 0 and torch.cuda.is_available()
    network = copy.deepcopy(material.network).to("cuda" if use_gpu else "cpu")
    training = material.data.training
    if material.sweep.prepare.limit is not None:
        training = training.head(material.sweep.prepare.limit)
    if material.sweep.prepare.pretraining_epochs:
        train(
            network,
            training,
            _train_config(material, any_width=False),
            checkpoint=work / "pretraining.pt",
        )
    _save(network.backbone.state_dict(), work / "dense.safetensors")
    order_channels(network)
    if material.sweep.prepare.anywidth_epochs:
        network.condition_batch_norm()
        train(
            network,
            training,
            _train_config(material, any_width=True),
            checkpoint=work / "anywidth.pt",
        )
    _save(network.backbone.state_dict(), work / "network.safetensors")
    (work / "manifest.json").write_text(json.dumps(_settings(material), indent=2) + "\n")
    for leftover in work.glob("*.pt"):
        leftover.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def _train_config(material: Material, *, any_width: bool) -> TrainConfig:
    settings = material.sweep.prepare
    return TrainConfig(
        epochs=settings.anywidth_epochs if any_width else settings.pretraining_epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        pad=settings.pad,
        flip=settings.flip,
        seed=material.sweep.seed,
        any_width=any_width,
        random_plans=settings.random_plans,
    )


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
