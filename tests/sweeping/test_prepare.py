"""Preparations share what they have in common, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime_pruning.backbones.layers import Normalise
from runtime_pruning.datasets import TrainingSplit
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.places import Place
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.config import PrepareConfig
from runtime_pruning.sweeping.prepare import Prepared, held, preparation_key, prepare
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
SHORT = ("prepare.pretraining_epochs=1", "prepare.anywidth_epochs=1", "prepare.limit=128")


def prepared(cache: Path, *changes: str) -> Prepared:
    return prepare(check_sweep(load_preset("digits", PRESETS, [*SHORT, *changes])), cache)


def entries(cache: Path, state: str) -> set[str]:
    return {folder.name for folder in (cache / state).iterdir()}


def weight(prepared: Prepared, state: str) -> torch.Tensor:
    return getattr(prepared, state).backbone.conv2.weight.detach().clone()


def test_anywidth_settings_leave_the_dense_network_as_it_is(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    for change in ("distillation=0.5", "random_plans=1", "anywidth_lr=0.01", "temperature=2"):
        other = prepared(tmp_path, f"prepare.{change}")
        assert torch.equal(weight(other, "dense"), weight(first, "dense"))
        assert not torch.equal(weight(other, "network"), weight(first, "network")), change
    prepared(tmp_path, "search.groups=[2]")
    assert len(entries(tmp_path, "dense")) == 1
    assert len(entries(tmp_path, "anywidth")) == 6
    assert first.key in entries(tmp_path, "anywidth")


def test_settings_of_both_make_both_anew(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    for change in ("lr=0.02", "label_smoothing=0.1", "schedule=cosine", "precision=bfloat16"):
        other = prepared(tmp_path, f"prepare.{change}", "prepare.pad=0")
        assert other.key != first.key
        assert not torch.equal(weight(other, "dense"), weight(first, "dense")), change
    assert len(entries(tmp_path, "dense")) == len(entries(tmp_path, "anywidth")) == 5


def test_sweeps_of_other_seeds_may_share_a_preparation() -> None:
    def key(*changes: str) -> str:
        return preparation_key(check_sweep(load_preset("digits", PRESETS, [*SHORT, *changes])))

    assert key("seed=0") == key("seed=1", "prepare.seed=0") == key("seed=0", "prepare.seed=0")
    assert key("seed=1") == key("seed=0", "prepare.seed=1") != key("seed=0")


def test_what_is_found_is_what_was_made(tmp_path: Path) -> None:
    made, found = prepared(tmp_path), prepared(tmp_path)
    assert found.key == made.key
    # One epoch each, of 128 of the 1,057 training images; dense, then any-width.
    share = 128 / len(check_sweep(load_preset("digits", PRESETS, SHORT)).data.training)
    assert made.dense_effort.epochs == share
    assert made.network_effort.epochs == 2 * share
    assert made.network_effort.train_seconds > made.dense_effort.train_seconds > 0
    assert (found.dense_effort, found.network_effort) == (made.dense_effort, made.network_effort)
    for state in ("dense", "network"):
        one, other = (getattr(each, state).state_dict() for each in (made, found))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not getattr(found, state).training
    # How training went is kept beside what it made.
    assert made.curves == found.curves
    assert {name: [step for step, _ in pairs] for name, pairs in made.curves.items()} == {
        f"prepare.{what}.{of}": [1]
        for what in ("dense", "any_width")
        for of in ("loss", "accuracy")
    }
    (tmp_path / "dense" / "cut.partial").mkdir()
    dense, cut, any_width = held(Place.at(tmp_path))
    assert re.fullmatch(
        r"dense     \w{16}  digits-cnn on digits, 0\.\d+ epochs in 0\.\d\d h on cpu", dense
    )
    assert cut == "dense     cut.partial  unfinished"
    assert any_width.startswith(f"anywidth  {made.key}  digits-cnn on digits, ")


def test_losses_may_be_counted_from_a_dense_network_that_learned_as_long(tmp_path: Path) -> None:
    usual = prepared(tmp_path)
    fair = prepared(tmp_path, "prepare.reference_epochs=2")
    assert fair.dense_effort.epochs == fair.network_effort.epochs == 2 * usual.dense_effort.epochs
    assert torch.equal(weight(fair, "network"), weight(usual, "network"))
    assert not torch.equal(weight(fair, "dense"), weight(usual, "dense"))
    assert fair.key != usual.key
    assert (len(entries(tmp_path, "dense")), len(entries(tmp_path, "anywidth"))) == (2, 1)
    # It is the dense network of whoever pretrains for as long; as long as is begun with is none.
    assert prepared(tmp_path, "prepare.reference_epochs=1").key == usual.key
    assert len(entries(tmp_path, "dense")) == 2


def test_settings_reach_the_training_that_they_are_for() -> None:
    shared = {
        "batch_size": 32,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "label_smoothing": 0.1,
        "precision": "float32",
        "channels_last": False,
        "pad": 1,
        "flip": False,
    }
    narrow = {"random_plans": 4, "distillation": 0.5, "temperature": 3.0}
    config = PrepareConfig(
        pretraining_epochs=3, anywidth_epochs=5, lr=0.2, anywidth_lr=0.02, **shared, **narrow
    )
    assert config.pretraining(seed=7) == TrainConfig(
        epochs=3, lr=0.2, any_width=False, seed=7, **shared
    )
    assert config.anywidth(seed=7) == TrainConfig(
        epochs=5, lr=0.02, any_width=True, seed=7, **shared, **narrow
    )
    assert PrepareConfig(lr=0.2).anywidth(seed=0).lr == 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anywidth_lr": 0.0}, r"`anywidth_lr > 0` must hold, but got 0\.0"),
        ({"distillation": 1.5}, r"`0 <= distillation <= 1` must hold, but got 1\.5"),
        ({"temperature": 0.0}, r"`temperature > 0` must hold, but got 0\.0"),
        ({"label_smoothing": 1.0}, r"`0 <= label_smoothing < 1` must hold, but got 1\.0"),
        ({"pretrained": True, "reference_epochs": 3}, r"`reference_epochs` must be absent where"),
        ({"batch_size": 1}, r"`batch_size >= 2` must hold, but got 1"),
    ],
)
def test_what_no_training_takes_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**settings)


def test_corrected_labels_and_pixels_give_another_key() -> None:
    material = check_sweep(load_preset("digits", PRESETS, SHORT))
    keys = {preparation_key(material)}
    for change in ("labels_N", "images_NCHW"):
        training = material.data.training
        arrays = {
            name: getattr(training, name).copy() for name in ("images_NCHW", "labels_N", "ids_N")
        }
        arrays[change][3] = (arrays[change][3] + 1) % 10
        corrected = TrainingSplit.from_arrays(training.info, *arrays.values())
        data = replace(material.data, training=corrected)
        keys.add(preparation_key(replace(material, data=data)))
    assert len(keys) == 3
    # What is beyond the limit is not learned from.
    changed = TrainingSplit.from_arrays(
        training.info,
        training.images_NCHW,
        np.where(np.arange(len(training)) >= 128, 0, training.labels_N),
        training.ids_N,
    )
    beyond = replace(material, data=replace(material.data, training=changed))
    assert preparation_key(beyond) == preparation_key(material)


def test_an_edited_forward_gives_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return preparation_key(check_sweep(load_preset("digits", PRESETS, SHORT)))

    forward, before = Normalise.forward, key()
    monkeypatch.setattr(Normalise, "forward", lambda self, x_BCHW: forward(self, x_BCHW * 0.5))
    assert key() != before
