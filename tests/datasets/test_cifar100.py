"""CIFAR-100: the names of its files and classes, and the form of its archive."""

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision

from runtime_pruning import datasets
from runtime_pruning.datasets import Split
from runtime_pruning.datasets.cifar100 import CIFAR100
from runtime_pruning.errors import DataError


def test_it_has_a_hundred_classes_in_the_alphabets_order() -> None:
    classes = CIFAR100.info.classes
    assert len(classes) == 100
    assert list(classes) == sorted(classes)
    assert (classes[0], classes[99]) == ("apple", "worm")


def test_it_reads_files_of_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CIFAR-100 needs .*cifar100-train\.parquet': no such"):
        datasets.load("cifar100", tmp_path)


def test_label_99_is_a_class_and_100_is_none() -> None:
    images = np.zeros((1, 3, 32, 32), np.uint8)
    assert Split.from_arrays(CIFAR100.info, images, [99]).labels_N.tolist() == [99]
    with pytest.raises(DataError, match=r"\[0, 99\], but got 100"):
        Split.from_arrays(CIFAR100.info, images, [100])


def test_the_archives_fine_labels_are_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3 * 32 * 32), np.uint8)
    content = {
        "train": {"data": rows[:2], "fine_labels": [7, 99], "coarse_labels": [0, 1]},
        "test": {"data": rows[2:], "fine_labels": [50], "coarse_labels": [2]},
        "meta": {"fine_label_names": list(CIFAR100.info.classes)},
    }
    digests = {}
    for name, each in content.items():
        path = tmp_path / "origin" / "cifar-100-python" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(each))
        digests[name] = hashlib.md5(path.read_bytes()).hexdigest()
    archive = tmp_path / "cache" / "tiny.tar.gz"  # fetched before, as torchvision leaves it
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "origin" / "cifar-100-python", "cifar-100-python")

    class TinyCIFAR100(torchvision.datasets.CIFAR100):
        filename = archive.name
        tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        train_list = [["train", digests["train"]]]  # noqa: RUF012 (torchvision's own form)
        test_list = [["test", digests["test"]]]  # noqa: RUF012
        meta = {"filename": "meta", "key": "fine_label_names", "md5": digests["meta"]}  # noqa: RUF012

    train, test = CIFAR100.download(tmp_path / "cache", TinyCIFAR100)
    assert train.labels_N.tolist() == [7, 99]
    assert test.labels_N.tolist() == [50]
    assert np.array_equal(train.images_NCHW.reshape(2, -1), rows[:2])
