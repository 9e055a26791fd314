"""The network that all trials start from: trained once, found again by a hash of what made it.

There are two entries per preparation: the dense network, and the any-width network made from it.
Preparations that differ in any-width settings alone share the dense one. A third is the dense
network that was trained for as long as the others together, where one is asked for.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors.torch import load_file

from runtime_pruning.curves import Series
from runtime_pruning.datasets import TrainingSplit
from runtime_pruning.files import locked, save_tensors, write_text
from runtime_pruning.methods import Effort
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.channel_order import order_channels
from runtime_pruning.network.structure import structure_key, weights_hash
from runtime_pruning.network.trainer import EpochReport, OnEpoch, TrainConfig
from runtime_pruning.network.training import train
from runtime_pruning.network.workers import Workers
from runtime_pruning.places import Place
from runtime_pruning.sweeping.checks import Material

# Counts changes to what preparation does with the same settings.
RECIPE = 3
MANIFEST = "manifest.json"

Settings = dict[str, Any]
# Trains in place; gets a checkpoint's path.
Make: TypeAlias = Callable[[PrunableNetwork, Path], "Made"]
Tell: TypeAlias = Callable[[str], None]


class Made(NamedTuple):
    """What training a network has cost, and how it went.

    Attributes:
        effort: in all.
        epochs: a report of each.
    """

    effort: Effort = Effort()
    epochs: Sequence[EpochReport] = ()


class Prepared(NamedTuple):
    """Two states of one backbone, both in evaluation mode."""

    dense: PrunableNetwork  # trained at full width only: what losses are measured against
    network: PrunableNetwork  # channels ordered, trained to run at any width
    key: str  # hash of all that made them
    dense_effort: Effort  # what each has cost, whenever that was
    network_effort: Effort
    curves: Series  # of both trainings, by epoch


def prepare(
    material: Material, cache: Path, *, tell: Tell = print, shared: bool = True
) -> Prepared:
    """Return the prepared network, training what ``cache`` does not hold already.

    Where torch's default process group is initialised, its processes train together.

    An interrupted training goes on from its last epoch. Entries are keyed by what the backbone
    computes, its initial weights, every pixel and label that it learns from, and every setting, so
    nothing stale is ever found.

    Args:
        material: the checked sweep.
        cache: folder of prepared networks.
        tell: told a line after each epoch.
        shared: whether processes that train together see one ``cache``, which the first writes; if
            not, each writes its own.
    """
    device = material.sweep.resources.prepare.device
    dense, settings = copy.deepcopy(material.network), _dense_settings(material)
    dense_key, make = _key(settings), partial(_pretrain, material=material, tell=tell)
    kept = partial(_load_or_make, device=device, shared=shared)
    dense_made = own = kept(cache / "dense" / dense_key, dense, settings, make)
    network, settings = copy.deepcopy(dense), _anywidth_settings(material, dense_key)
    key, make = _key(settings), partial(_order_and_widen, material=material, tell=tell)
    made = kept(cache / "anywidth" / key, network, settings, make)
    longer = _reference(material)
    if longer is not None:
        dense, settings = copy.deepcopy(material.network), _dense_settings(longer)
        make = partial(_pretrain, material=longer, tell=tell)
        dense_made = kept(cache / "dense" / _key(settings), dense, settings, make)
    return Prepared(
        dense=dense.eval(),
        network=network.eval(),
        key=preparation_key(material),
        dense_effort=dense_made.effort,
        network_effort=own.effort + made.effort,
        curves={**_curves("dense", dense_made), **_curves("any_width", made)},
    )


def _curves(what: str, made: Made) -> Series:
    """Return a training's loss and accuracy by epoch."""
    losses = [(each.epoch, each.loss) for each in made.epochs]
    accuracies = [(each.epoch, each.accuracy) for each in made.epochs]
    return {f"prepare.{what}.loss": losses, f"prepare.{what}.accuracy": accuracies}


def _reference(material: Material) -> Material | None:
    """Return what the reference is trained by, where it is not the dense network at hand."""
    prepare = material.sweep.prepare
    if prepare.reference_epochs in (None, prepare.pretraining_epochs):
        return None
    longer = replace(prepare, pretraining_epochs=prepare.reference_epochs)
    return replace(material, sweep=replace(material.sweep, prepare=longer))


def entries(material: Material) -> tuple[str, ...]:
    """Return the folders of a cache that a preparation makes, or finds: dense, then any width.

    The reference's is the last, where it is another network.
    """
    dense_key = _key(_dense_settings(material))
    own = f"dense/{dense_key}", f"anywidth/{_key(_anywidth_settings(material, dense_key))}"
    longer = _reference(material)
    return own if longer is None else (*own, f"dense/{_key(_dense_settings(longer))}")


def is_prepared(material: Material, cache: Place) -> bool:
    """Whether a cache holds all that a preparation needs, so that nothing is trained."""
    return all(cache.holds(f"{entry}/{MANIFEST}") for entry in entries(material))


def held(cache: Place) -> list[str]:
    """Return a line for each network that a cache holds: what it is, and what it has cost."""
    lines = []
    for kind in ("dense", "anywidth"):
        for key in (cache / kind).names():
            text = (cache / kind / key).read_text(MANIFEST)
            if text is None:
                lines.append(f"{kind:8}  {key}  unfinished")
                continue
            facts = json.loads(text)
            effort = Effort(**facts["effort"])
            lines.append(
                f"{kind:8}  {key}  {facts['backbone']} on {facts['dataset'] or 'no images'}, "
                f"{effort.epochs:g} epochs in {effort.train_seconds / 3600:.2f} h on "
                f"{facts['device']}"
            )
    return lines


def preparation_key(material: Material) -> str:
    """Return the hash of everything that the prepared weights depend on."""
    key = _key(_anywidth_settings(material, _key(_dense_settings(material))))
    longer = _reference(material)
    return key if longer is None else _key({"network": key, "dense": _dense_settings(longer)})


def _dense_settings(material: Material) -> Settings:
    """Return everything that the dense weights depend on."""
    sweep = material.sweep
    trained = sweep.prepare.pretraining_epochs > 0
    return {
        "backbone": sweep.backbone,
        "structure": structure_key(material.network),
        "initial_weights": weights_hash(material.network),
        "dataset": sweep.dataset if trained else None,
        "images": _images(material).content_hash() if trained else None,
        "training": asdict(sweep.prepare.pretraining(seed=sweep.prepare_seed)) if trained else None,
        "torch": torch.__version__,
        "recipe": RECIPE,
    }


def _anywidth_settings(material: Material, dense_key: str) -> Settings:
    """Return everything that the any-width weights depend on."""
    sweep = material.sweep
    return {
        "backbone": sweep.backbone,
        "dense": dense_key,
        "dataset": sweep.dataset,
        "images": _images(material).content_hash(),
        "groups": material.network.groups,
        "align": sweep.align,
        **({} if sweep.streams else {"streams": False}),
        "training": asdict(sweep.prepare.anywidth(seed=sweep.prepare_seed)),
        "torch": torch.__version__,
        "recipe": RECIPE,
    }


def _key(settings: Settings) -> str:
    """Return a hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _images(material: Material) -> TrainingSplit:
    """Return the images that the preparation learns from."""
    training, limit = material.data.training, material.sweep.prepare.limit
    return training if limit is None else training.head(limit)


def _pretrain(
    network: PrunableNetwork, checkpoint: Path, *, material: Material, tell: Tell
) -> Made:
    """Train at full width."""
    config = material.sweep.prepare.pretraining(seed=material.sweep.prepare_seed)
    return _trained(network, config, checkpoint, material, partial(_told, tell, "dense"))


def _order_and_widen(
    network: PrunableNetwork, checkpoint: Path, *, material: Material, tell: Tell
) -> Made:
    """Put important channels first, and train at all widths."""
    config = material.sweep.prepare.anywidth(seed=material.sweep.prepare_seed)
    order_channels(network)
    if config.epochs:
        network.condition_batch_norm()
    return _trained(network, config, checkpoint, material, partial(_told, tell, "any width"))


def _trained(
    network: PrunableNetwork,
    config: TrainConfig,
    checkpoint: Path,
    material: Material,
    on_epoch: OnEpoch,
) -> Made:
    """Train, if there is an epoch to train for.

    No bar is shown: what is told after each epoch is read in a log, too.
    """
    if not config.epochs:
        return Made()
    images = _images(material)
    report = train(
        network, images, config, progress=False, checkpoint=checkpoint, on_epoch=on_epoch
    )
    share = len(images) / len(material.data.training)
    effort = Effort(epochs=len(report.epochs) * share, train_seconds=report.seconds)
    return Made(effort, report.epochs)


def _told(tell: Tell, what: str, report: EpochReport) -> None:
    """Say how far a training is."""
    tell(
        f"Training, {what}: epoch {report.epoch}, loss {report.loss:.3f}, accuracy "
        f"{report.accuracy:.2%}, {report.seconds:.1f} s"
    )


def _load_or_make(
    folder: Path,
    network: PrunableNetwork,
    settings: Settings,
    make: Make,
    *,
    device: str,
    shared: bool,
) -> Made:
    """Load a folder's weights, after making them if need be; return how they were made.

    The folder appears whole or not at all. Of several sweeps that want it one makes it, the others
    wait. Workers make it together, the first writes it; whoever started them holds the lock. One
    that is not shared needs no lock.
    """
    manifest, workers = folder / MANIFEST, Workers.of_process_group()
    lock = folder.parents[1] / "locks" / f"{folder.parent.name}-{folder.name}"
    with locked(lock) if shared and workers.size == 1 else nullcontext():
        if not manifest.is_file():
            work = folder.with_suffix(".partial")
            work.mkdir(parents=True, exist_ok=True)
            made = copy.deepcopy(network).to(device)
            effort, epochs = make(made, work / "training.pt")
            facts = {"effort": asdict(effort), "epochs": epochs, "device": device}
            if workers.rank == 0 or not shared:
                save_tensors(made.backbone.state_dict(), work / "network.safetensors")
                text = json.dumps({**settings, **facts}, indent=2) + "\n"
                write_text(work / manifest.name, text)
                (work / "training.pt").unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                work.rename(folder)
            workers.wait()
    network.load_backbone(load_file(folder / "network.safetensors"))
    facts = json.loads(manifest.read_text())
    return Made(
        Effort(**facts["effort"]), [EpochReport(*epoch) for epoch in facts.get("epochs", ())]
    )
