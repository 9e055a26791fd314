"""Evaluating a bundle on labelled images."""

from pathlib import Path

import pytest
from PIL import Image

from runtime_pruning.deploy.evaluation import evaluate_bundle, labelled_files, wilson
from runtime_pruning.deploy.shipped import load_bundle
from runtime_pruning.errors import ConfigError, DataError


def test_wilsons_interval() -> None:
    # By hand for 8 of 10 at z = 1.96: centre (0.8 + 0.1921) / 1.3841, half 0.2264.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.8, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[2] == pytest.approx(1)
    with pytest.raises(ConfigError, match="images >= 1"):
        wilson(0, 0)


def test_a_folder_of_pixels_gives_what_the_record_holds(exported, tmp_path: Path) -> None:
    validation, record = exported.data.validation, exported.shipments[2].record
    for image, label, id_ in zip(
        validation.images_NCHW[:60], validation.labels_N, validation.ids_N, strict=False
    ):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(tmp_path / str(label) / f"{id_}.png")
    files, labels = labelled_files(tmp_path, exported.card.classes)
    assert [int(file.parent.name) for file in files] == labels
    shipped = load_bundle(exported.folder)
    found = evaluate_bundle(shipped, validation.images_NCHW[:], validation.labels_N.tolist())
    assert found.accuracy[1] == record.correct_N.mean()
    assert found.macs_per_image == record.executed_macs_N.mean()
    assert found.macs_fraction == 1.0
    assert set(found.accuracy_by_class) == set(exported.card.classes)
    # A file is resized before it is cropped, as photographs are: other pixels, the same network.
    own = evaluate_bundle(shipped, files, labels, "penalty=0.8")
    assert own.images == 60
    assert own.macs_per_image == exported.shipments[0].record.executed_macs_N.mean()


def test_folders_are_named_like_classes(exported, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(DataError, match=r"but 'tree' is not.* Did you mean 'three'"):
        labelled_files(tmp_path, ("two", "three"))
    with pytest.raises(DataError, match="none found"):
        labelled_files(tmp_path / "tree", ("two", "three"))
    with pytest.raises(DataError, match="lie in a folder per class"):
        labelled_files(tmp_path / "nowhere", ("two", "three"))
