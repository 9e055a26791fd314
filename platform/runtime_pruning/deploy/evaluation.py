"""An exported bundle on a person's own labelled images: accuracy with its interval, compute, time.

Dimensions: N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from runtime_pruning.deploy.budget import Budget
from runtime_pruning.deploy.card import Interval
from runtime_pruning.deploy.images import prepare
from runtime_pruning.deploy.shipped import PART, ShippedBundle
from runtime_pruning.deploy.timing import BundleTiming, time_bundle
from runtime_pruning.errors import ConfigError, DataError, did_you_mean

LEVEL = 0.95


@dataclass(frozen=True)
class Evaluation:
    """What a bundle is worth on labelled images.

    Attributes:
        images: how many.
        accuracy: share of right answers, with a 95 % interval.
        macs_per_image: mean executed MACs.
        macs_fraction: of the unpruned backbone's.
        accuracy_by_class: by name, of the classes that occur.
    """

    images: int
    accuracy: Interval
    macs_per_image: float
    macs_fraction: float
    accuracy_by_class: dict[str, float]


def labelled_files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return the images of a folder that holds one of images per class, and their labels.

    Raises:
        DataError: a folder that is named like no class, or no images.
    """
    from runtime_pruning.datasets.decoding import suffixes

    if not folder.is_dir():
        raise DataError(f"Labelled images lie in a folder per class, but got {str(folder)!r}.")
    known, files, labels = suffixes(), [], []
    for place in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if place.name.startswith("."):
            continue
        if place.name not in classes:
            raise DataError(
                f"Each folder must be named like a class of the bundle, but {place.name!r} is "
                f"not.{did_you_mean(place.name, classes)}"
            )
        found = sorted(path for path in place.rglob("*") if path.suffix.lower() in known)
        files += found
        labels += [list(classes).index(place.name)] * len(found)
    if not files:
        raise DataError(f"{str(folder)!r} must hold a folder of images per class: none found.")
    return files, labels


def evaluate_bundle(
    shipped: ShippedBundle,
    images_N: Sequence[Path] | Tensor,
    labels_N: Sequence[int],
    budget: str | Budget | None = None,
) -> Evaluation:
    """Return what a bundle is worth on images, at a budget or as it was exported.

    Args:
        shipped: the bundle.
        images_N: files to prepare, or pixels that are.
        labels_N: a class number per image.
        budget: see `ShippedBundle.predict`.
    """
    position = None if budget is None else shipped.position(budget)
    numbers, macs = [], []
    for start in range(0, len(labels_N), PART):
        part = prepare(images_N[start : start + PART], shipped.card.preprocessing)
        found = shipped.run(part, position)
        numbers.append(found.numbers_B)
        macs.append(found.macs_B)
    true_N = torch.tensor(labels_N)
    right_N, macs_N = torch.cat(numbers) == true_N, torch.cat(macs).double()
    classes = shipped.card.classes
    return Evaluation(
        images=len(labels_N),
        accuracy=wilson(int(right_N.sum()), len(labels_N)),
        macs_per_image=float(macs_N.mean()),
        macs_fraction=float(macs_N.mean()) / shipped.card.dense_macs,
        accuracy_by_class={
            classes[label]: float(right_N[true_N == label].double().mean())
            for label in sorted(set(labels_N))
        },
    )


def time_on(
    shipped: ShippedBundle, images_NCHW: Tensor, batches: Sequence[int], *, rounds: int = 10
) -> list[BundleTiming]:
    """Time the exported point on prepared images, against its backbone at full width.

    Raises:
        ConfigError: a batch below one image or above N.
    """
    return time_bundle(shipped.bundle(), images_NCHW, batches, rounds=rounds)


def wilson(right: int, images: int) -> Interval:
    """Return a share with Wilson's score interval, which holds at 0 and 1 too.

    Source: Wilson, "Probable Inference", J. Am. Stat. Assoc. 22, 1927.

    Raises:
        ConfigError: no images.
    """
    if images < 1:
        raise ConfigError(f"`images >= 1` must hold, but got {images}.")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = right / images
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images)
    half *= (share * (1 - share) / images + z * z / (4 * images * images)) ** 0.5
    return max(0.0, centre - half), share, min(1.0, centre + half)
