"""Networks of the zoo: each is trained by one recipe, and kept with the manifest that rebuilds it.

A recipe is a YAML file ``zoo/NAME.yaml``. Training writes ``NAME.safetensors`` and ``NAME.json``
beside it: weights, and what made them. The backbone learns on the training split alone, so that
policy and validation images are unseen to it; the test split is read once, when training has ended.
"""

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn

from runtime_pruning import backbones, datasets
from runtime_pruning.config import build_config, config_class
from runtime_pruning.datasets import Split, to_float
from runtime_pruning.datasets.cache import cache_folder
from runtime_pruning.errors import ConfigError
from runtime_pruning.files import save_tensors, write_text
from runtime_pruning.network import trace
from runtime_pruning.network.trainer import EpochReport, TrainConfig, TrainReport
from runtime_pruning.network.training import train

_BATCH = 250  # images per forward pass when accuracy is measured


@config_class
class Recipe:
    """How one network of the zoo is made.

    Attributes:
        backbone: its name; the initial weights are drawn with the training's seed.
        dataset: whose training split it learns on.
        training: see `TrainConfig`; full width only.
    """

    backbone: str
    dataset: str
    training: TrainConfig

    def __post_init__(self) -> None:
        if self.training.any_width:
            raise ValueError("`any_width: false` must hold for a network of the zoo.")


class Trained(NamedTuple):
    """Where a network of the zoo lies."""

    weights: Path
    manifest: Path


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file.

    Raises:
        ConfigError: no such file, not YAML, or a setting that does not exist or is out of range.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"There is no recipe {str(path)!r}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The recipe {str(path)!r} is not valid YAML: {error}.") from error
    return build_config(Recipe, values, where=f"Recipe {path.stem!r}")


def train_recipe(
    path: Path, *, data_dir: Path | None = None, progress: bool = False, epochs: int | None = None
) -> Trained:
    """Train the network of a recipe; an interrupted training goes on from its last epoch.

    Args:
        path: of the recipe.
        data_dir: folder of the dataset; None: as the environment says.
        progress: show a bar on standard error.
        epochs: in place of the recipe's.
    """
    recipe = read_recipe(path)
    config = recipe.training
    if epochs is not None:
        config = build_config(TrainConfig, {**asdict(config), "epochs": epochs}, where="--epochs")
    data = datasets.load(recipe.dataset, data_dir)
    backbone = backbones.create(
        recipe.backbone,
        num_classes=len(data.info.classes),
        image_shape=data.info.image_shape,
        seed=config.seed,
    )
    network = trace(backbone, data.info.image_shape)
    checkpoint = cache_folder() / "training" / f"{path.stem}-{_key(recipe, config)}.pt"

    def tell(report: EpochReport) -> None:
        held_out = accuracy(backbone, data.validation)
        print(
            f"{path.stem}: epoch {report.epoch}/{config.epochs}, loss {report.loss:.3f}, "
            f"training {report.accuracy:.2%}, validation {held_out:.2%}, {report.seconds:.0f} s",
            flush=True,
        )

    report = train(
        network,
        data.training,
        config,
        progress=progress,
        checkpoint=checkpoint,
        on_epoch=tell,
    )
    trained = Trained(path.with_suffix(".safetensors"), path.with_suffix(".json"))
    save_tensors(backbone.state_dict(), trained.weights)
    found = {
        "validation": accuracy(backbone, data.validation),
        "test": accuracy(backbone, data.test),
    }
    manifest = _manifest(recipe, config, report, found, path)
    manifest["sha256"] = hashlib.sha256(trained.weights.read_bytes()).hexdigest()
    write_text(trained.manifest, json.dumps(manifest, indent=2) + "\n")
    return trained


@torch.inference_mode()
def accuracy(backbone: nn.Module, split: Split) -> float:
    """Return the share of a split's images that a backbone labels rightly, in [0, 1], float32."""
    training = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    hits = 0
    for start in range(0, len(split), _BATCH):
        images_BCHW = to_float(split.images_NCHW[start : start + _BATCH]).to(device)
        labels_B = torch.from_numpy(split.labels_N[start : start + _BATCH].copy()).to(device)
        hits += int((backbone(images_BCHW).argmax(1) == labels_B).sum())
    backbone.train(training)
    return hits / len(split)


def _key(recipe: Recipe, config: TrainConfig) -> str:
    """Return what tells a training from others, in a few characters."""
    made_of = {"backbone": recipe.backbone, "dataset": recipe.dataset, "training": config.changed()}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:8]


def _manifest(
    recipe: Recipe,
    config: TrainConfig,
    report: TrainReport,
    accuracies: dict[str, float],
    path: Path,
) -> dict[str, Any]:
    """Return what made a network, as JSON holds it."""
    return {
        "name": path.stem,
        "command": f"runtime-pruning train zoo/{path.name}",
        "backbone": recipe.backbone,
        "dataset": recipe.dataset,
        "training": config.changed(),
        "epochs": len(report.epochs),
        "steps": report.steps,
        "hours": round(report.seconds / 3600, 2),
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "torch": torch.__version__.split("+")[0],
        "accuracy": accuracies,
    }
