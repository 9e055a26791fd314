"""Measure the published ResNets on CIFAR-10's test split.

Run:     python tests/benchmarks/pretrained_accuracy.py [--data-dir D] [--weights-dir W]
Expect:  resnet20-cifar 91.73 %, resnet32-cifar 92.63 %, resnet56-cifar 93.39 %.
"""

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import HeldOutSplit

PUBLISHED = {"resnet20-cifar": 91.73, "resnet32-cifar": 92.63, "resnet56-cifar": 93.39}  # percent


def correct_images(backbone: torch.nn.Module, split: HeldOutSplit, batch: int) -> int:
    """Return how many images of a split the backbone recognises."""
    correct = 0
    labels_N = torch.tensor(split.labels_N)
    with torch.inference_mode():
        for start in tqdm(range(0, len(split), batch), unit="batch", disable=None):
            rows = slice(start, start + batch)
            logits_BK = backbone(datasets.to_float(split.images_NCHW[rows]))
            correct += int((logits_BK.argmax(-1) == labels_N[rows]).sum())
    return correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--batch", type=int, default=250, help="images per forward pass")
    options = parser.parse_args()
    test = datasets.load("cifar10", options.data_dir).test
    wrong = []
    for name in options.backbones:
        backbone = backbones.create(
            name,
            num_classes=10,
            image_shape=(3, 32, 32),
            weights_dir=options.weights_dir,
            pretrained=True,
        ).eval()
        start = time.perf_counter()
        percent = 100 * correct_images(backbone, test, options.batch) / len(test)
        seconds = time.perf_counter() - start
        published = PUBLISHED.get(name)  # None: a third party's
        print(f"{name}: {percent:.2f} % in {seconds:.1f} s (published: {published or '-'})")
        if published is not None and f"{percent:.2f}" != f"{published:.2f}":
            wrong.append(name)
    if wrong:
        raise SystemExit(f"These differ from their published accuracy: {wrong}.")


if __name__ == "__main__":
    main()
