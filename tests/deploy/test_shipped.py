"""A loaded bundle: it answers as it did, needs no Ray, and refuses what has changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime_pruning.deploy.card import CHECK, read_card, write_card
from runtime_pruning.deploy.shipped import load_bundle
from runtime_pruning.errors import ConfigError, DataError

WITHOUT_RAY = """
import json, sys
for name in ("ray", "mlflow", "optuna", "sklearn", "plotly", "matplotlib", "pandas"):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
from runtime_pruning.deploy import load_bundle
found = load_bundle(sys.argv[1]).predict(np.load(sys.argv[2]), sys.argv[3] or None)
print(json.dumps([found.labels, found.macs_B.tolist(), found.stops_B.tolist()]))
"""


@pytest.mark.parametrize("budget", ["", "macs=9e4"])
def test_it_needs_no_ray_and_answers_the_same_without(
    exported, tmp_path: Path, budget: str
) -> None:
    images_NCHW = exported.data.test.images_NCHW
    np.save(tmp_path / "images.npy", images_NCHW)
    arguments = [str(exported.folder), str(tmp_path / "images.npy"), budget]
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *arguments], capture_output=True, text=True, check=True
    )
    found = load_bundle(exported.folder).predict(images_NCHW[:], budget or None)
    expected = [found.labels, found.macs_B.tolist(), found.stops_B.tolist()]
    assert json.loads(told.stdout) == expected
    assert len(set(expected[2])) == (2 if budget else 1)


def test_each_stop_repeats_its_record(exported) -> None:
    shipped, validation = load_bundle(exported.folder), exported.data.validation
    images_NCHW = validation.images_NCHW[np.argsort(validation.ids_N)]  # as records hold them
    for position, shipment in enumerate(exported.shipments):
        found = shipped.run(torch.from_numpy(images_NCHW / np.float32(255)), float(position))
        assert found.numbers_B.tolist() == shipment.record.predictions_N.tolist()
        assert found.macs_B.tolist() == shipment.record.executed_macs_N.tolist()


def test_an_image_is_answered_alike_alone_and_among_others(exported) -> None:
    shipped, images_NCHW = load_bundle(exported.folder), exported.data.test.images_NCHW[:20]
    together = shipped.predict(images_NCHW, "macs=9e4")
    alone = [shipped.predict(image, "macs=9e4") for image in images_NCHW[::-1]][::-1]
    assert [each.labels[0] for each in alone] == together.labels
    assert [int(each.macs_B) for each in alone] == together.macs_B.tolist()


@pytest.mark.parametrize(
    "name", ["network.safetensors", "check.safetensors", "manifest.json", "card.json"]
)
def test_a_changed_bit_is_refused(exported, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "bundle")
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*damaged|damaged.*"):
        load_bundle(folder)


def test_another_answer_than_at_export_is_refused(exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "bundle")
    stored = load_file(folder / CHECK)
    stored["logits_BK"][3, 2] += 0.1 * stored["logits_BK"].abs().max()
    stored["macs_B"][0] += 1
    save_file(stored, folder / CHECK)
    write_card(folder, read_card_unchecked(folder))
    with pytest.raises(DataError, match=r"logits are off by .*; executed MACs differ"):
        load_bundle(folder)
    assert load_bundle(folder, check=False).card == exported.card


def read_card_unchecked(folder: Path):  # type: ignore[no-untyped-def]
    """Return the card of a folder of which a file was changed: as the one that was copied."""
    from runtime_pruning.config import build_config
    from runtime_pruning.deploy.card import Card

    facts = json.loads((folder / "card.json").read_text())
    for name in ("schema", "files", "sha256"):
        facts.pop(name)
    return build_config(Card, facts, where="card")


def test_a_sweeps_bundle_is_no_exported_one(exported) -> None:
    with pytest.raises(DataError, match="make one that does by `runtime-pruning export`"):
        load_bundle(exported.shipments[0].folder)
    with pytest.raises(DataError, match=r"holds a card\.json"):
        read_card(Path("nowhere"))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("macs=5", "`macs >= "),
        ("macs=-1", "`0 < macs < inf` must hold, but got -1"),
        ("macs=nan", "A budget is macs=NUMBER"),
        ("ms=inf", "`0 < ms < inf` must hold"),
        ("watts=3", "A budget is macs=NUMBER, ms=NUMBER or penalty=NUMBER, but got 'watts=3'"),
        ("ms=3", "needs times of every stop on this device"),
        ("penalty=9", "`0.1 <= penalty <= 0.8` must hold"),
    ],
)
def test_a_budget_that_it_cannot_keep_is_refused(exported, budget: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_bundle(exported.folder).predict(exported.data.test.images_NCHW[:1], budget)
