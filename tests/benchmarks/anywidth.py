"""What each choice of any-width training gains and costs: one factor at a time, several seeds.

Run:     python tests/benchmarks/anywidth.py [--seeds 6] [--choices smallest=no distillation=0]
         python tests/benchmarks/anywidth.py --backbone resnet20-cifar --dataset cifar10
             --pretrained --limit 10000 --epochs 2 --lr 0.05 --seeds 1 --choices ...
Expect:  a table: accuracy at each fixed width, in percent, the mean over seeds; behind it the
         difference from the first line, paired by seed, with its standard error; CPU seconds.

Accuracy is that on validation images; of a backbone that is trained here, on the policy split's,
too: neither trains on them. Published weights have seen both: compare lines, not with others.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import ImageDataset, to_float
from runtime_pruning.network import PrunableNetwork, channel_importance, order_channels, trace
from runtime_pruning.network.policies import FixedPolicy, RandomPolicy
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import recalibrate_batch_norm, train

GROUPS = 4


@dataclass(frozen=True)
class Choice:
    """One way to train, and to keep batch-norm statistics."""

    training: dict[str, Any] = field(default_factory=dict)
    order: str = "importance"  # or "index", or "least": the least important first
    norms: str = "per width"  # or "shared", or "recalibrated" for the width that is measured


CHOICES = {
    "all as set": Choice(),
    "distillation=0": Choice({"distillation": 0.0}),
    "distillation=0.5": Choice({"distillation": 0.5}),
    "temperature=3": Choice({"temperature": 3.0}),
    "random_plans=1": Choice({"random_plans": 1}),
    "random_plans=4": Choice({"random_plans": 4}),
    "smallest=no": Choice({"smallest": False}),
    "full_weight=0": Choice({"full_weight": 0.0}),
    "full_weight=3": Choice({"full_weight": 3.0}),
    "norms=shared": Choice(norms="shared"),
    "norms=recalibrated": Choice(norms="recalibrated"),
    "calibration=none": Choice({"calibration_images": 0}),
    "order=index": Choice(order="index"),
    "order=least": Choice(order="least"),
    "schedule=cosine": Choice({"schedule": "cosine"}),
    "label_smoothing=0.1": Choice({"label_smoothing": 0.1}),
}


def dense(options: argparse.Namespace, data: ImageDataset, seed: int) -> PrunableNetwork:
    """Return the network that all choices of one seed start from."""
    backbone = backbones.create(
        options.backbone,
        num_classes=len(data.info.classes),
        image_shape=data.info.image_shape,
        weights_dir=options.weights_dir,
        pretrained=options.pretrained,
        seed=seed,
    )
    network = trace(backbone, data.info.image_shape, groups=GROUPS, align=4)
    if not options.pretrained:
        config = replace(training(options, seed), epochs=options.dense_epochs, any_width=False)
        train(network, data.training, config, progress=False)
    return network.eval()


def training(options: argparse.Namespace, seed: int) -> TrainConfig:
    """Return how a choice that changes nothing is trained."""
    return TrainConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        pad=options.pad,
        flip=options.pretrained,
        seed=seed,
    )


def trained(
    choice: Choice, start: PrunableNetwork, data: ImageDataset, config: TrainConfig
) -> tuple[PrunableNetwork, float]:
    """Return a network trained at all widths, and the CPU seconds that it took."""
    network = copy.deepcopy(start)
    if choice.order != "index":
        sign = -1 if choice.order == "least" else 1
        scores = [
            importance_C.max() + sign * importance_C
            for importance_C in (channel_importance(network))
        ]
        order_channels(network, scores)
    if choice.norms == "per width":
        network.condition_batch_norm()
    before = time.process_time()
    train(network, data.training, replace(config, **choice.training), progress=False)
    return network, time.process_time() - before


def accuracies(
    network: PrunableNetwork, choice: Choice, data: ImageDataset, images: tuple[Any, Any]
) -> list[float]:
    """Return percent of images recognised at each fixed width, then under random plans."""
    found = []
    policies = [FixedPolicy([groups] * len(network.sites)) for groups in range(1, GROUPS + 1)]
    for policy in (*policies, RandomPolicy(GROUPS, len(network.sites), seed=0)):
        measured = network
        if choice.norms == "recalibrated":
            measured = copy.deepcopy(network)
            recalibrate_batch_norm(measured, data.training, policy)
        found.append(100 * _accuracy(measured, policy, *images))
    return found


@torch.inference_mode()
def _accuracy(network: PrunableNetwork, policy: Any, images_NCHW: Any, labels_N: Any) -> float:
    hits = 0
    for start in range(0, len(labels_N), 500):
        rows = slice(start, start + 500)
        logits_BK = network.execute(to_float(images_NCHW[rows]), policy, mode="masked").logits_BK
        hits += int((logits_BK.argmax(1).numpy() == labels_N[rows]).sum())
    return hits / len(labels_N)


def unseen(options: argparse.Namespace, data: ImageDataset) -> tuple[Any, Any]:
    """Return images and labels to measure on."""
    if options.pretrained:
        some = data.validation.head(min(options.measure, len(data.validation)))
        return some.images_NCHW, some.labels_N
    splits = (data.validation, data.policy)
    images_NCHW = np.concatenate([split.images_NCHW for split in splits])
    return images_NCHW, np.concatenate([split.labels_N for split in splits])


def line(name: str, rows: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> str:
    """Return one line of the table; the last column of a row is seconds, not percent."""
    cells = []
    for one, other in zip(zip(*rows, strict=True), zip(*base, strict=True), strict=True):
        gains = [a - b for a, b in zip(one, other, strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        cells.append(f"{statistics.mean(one):6.2f} ({statistics.mean(gains):+5.2f} +-{error:4.2f})")
    return f"{name:20} " + " ".join(cells)


def main() -> None:
    """Train and measure each choice from each seed's dense network; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="digits-cnn")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--limit", type=int, help="training images")
    parser.add_argument("--measure", type=int, default=2000, help="images, of a pretrained one")
    parser.add_argument("--dense-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--pad", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load(options.dataset, options.data_dir)
    if options.limit is not None:
        data = replace(data, training=data.training.head(options.limit))
    images = unseen(options, data)
    names = list(dict.fromkeys(["all as set", *options.choices]))
    starts = [dense(options, data, seed) for seed in range(options.seeds)]
    widths = [f"{groups}/{GROUPS}" for groups in range(1, GROUPS + 1)]
    print(f"{'':20} " + " ".join(f"{w:^21}" for w in (*widths, "random", "CPU seconds")))
    base: list[list[float]] = []
    for name in names:
        rows = []
        for seed, start in enumerate(starts):
            network, seconds = trained(CHOICES[name], start, data, training(options, seed))
            rows.append([*accuracies(network, CHOICES[name], data, images), seconds])
        base = base or rows
        print(line(name, rows, base), flush=True)


if __name__ == "__main__":
    main()
