"""Exporting: what a bundle knows of itself comes from the points that it was made of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime_pruning.deploy import read_bundle
from runtime_pruning.deploy.card import read_card
from runtime_pruning.deploy.export import export_bundle, temperature_of
from runtime_pruning.deploy.shipped import load_bundle
from runtime_pruning.errors import ConfigError


def test_a_bundle_says_what_to_expect(exported) -> None:
    card = read_card(exported.folder)
    assert card == exported.card
    assert card.dataset == "digits"
    assert card.classes == tuple(map(str, range(10)))
    assert card.preprocessing.colour == "grey"
    assert card.licence == {"code": "Apache-2.0", "weights": "CC0-1.0"}
    assert card.provenance["mlflow_run"] == "abc"
    assert card.provenance["figures"]["images"] == len(exported.data.validation)
    for stop, shipment in zip(card.stops, exported.shipments, strict=True):
        low, value, high = stop.accuracy
        assert low < value == shipment.record.correct_N.mean() < high
        assert stop.macs_per_image[1] == shipment.record.executed_macs_N.mean()
        assert (stop.point_id, stop.split) == (shipment.point.point_id, "validation")
    assert [stop.folder for stop in card.stops][card.chosen] == "."


def test_its_folder_is_a_points_bundle_too(exported) -> None:
    bundle = read_bundle(exported.folder)
    assert bundle.policy.groups_L.tolist() == [2, 2, 2]


def test_stops_on_the_same_weights_store_what_differs(exported) -> None:
    narrow, wider, _ = (exported.folder / stop.folder for stop in exported.card.stops)
    whole = (exported.folder / "network.safetensors").stat().st_size
    assert (narrow / "changed.safetensors").stat().st_size < whole / 4
    assert not (narrow / "network.safetensors").exists()
    assert (wider / "network.safetensors").stat().st_size == whole


def test_probabilities_are_calibrated_on_validation(exported) -> None:
    record = exported.shipments[2].record
    log_NK, right_N = record.log_probabilities_NA, record.labels_N

    def loss(temperature: float) -> float:
        scaled_NK = log_NK.astype(np.float64) / temperature
        scaled_NK -= np.log(np.exp(scaled_NK).sum(1, keepdims=True))
        return -float(np.take_along_axis(scaled_NK, right_N[:, None], 1).mean())

    best = temperature_of(record)
    assert best == exported.card.temperature
    assert loss(best) < min(loss(0.97 * best), loss(1.03 * best))
    validation = exported.data.validation
    images_NCHW = validation.images_NCHW[np.argsort(validation.ids_N)]  # as records hold them
    found = load_bundle(exported.folder).predict(images_NCHW)
    share_N = found.probabilities_BK[torch.arange(300), torch.from_numpy(right_N.copy())]
    assert -float(share_N.log().mean()) == pytest.approx(loss(best), rel=1e-4)


def test_it_writes_into_an_empty_folder_only(exported, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = (exported.card.stop.point_id, exported.origin, exported.shipments[2].record)
    with pytest.raises(ConfigError, match="must be empty"):
        export_bundle(tmp_path, exported.shipments, *arguments)


def test_the_card_is_plain_json(exported) -> None:
    facts = json.loads((exported.folder / "card.json").read_text())
    assert facts["schema"] == 1
    assert sorted(facts["files"]) == sorted(
        path.relative_to(exported.folder).as_posix()
        for path in exported.folder.rglob("*")
        if path.is_file() and path.name != "card.json"
    )
