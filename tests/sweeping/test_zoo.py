"""Networks of the zoo: trained by their recipes, resumed, and what the manifests state."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runtime_pruning import backbones, cli, datasets
from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping import zoo

ROOT = Path(__file__).parents[2]
RECIPE = """
backbone: digits-cnn
dataset: digits
training: {epochs: 2, batch_size: 64, lr: 0.2, any_width: false, precision: float32}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_gives_weights_and_the_manifest_that_rebuilds_them(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(recipe), "--threads", "1"]) == 0
    weights, manifest = recipe.with_suffix(".safetensors"), recipe.with_suffix(".json")
    told = json.loads(manifest.read_text())
    assert told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (told["backbone"], told["dataset"], told["epochs"]) == ("digits-cnn", "digits", 2)
    assert told["training"]["epochs"] == 2
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    backbone.load_state_dict(load_file(weights))
    data = datasets.load("digits")
    assert zoo.accuracy(backbone, data.test) == told["accuracy"]["test"] > 0.3
    assert zoo.accuracy(backbone, data.validation) == told["accuracy"]["validation"]
    assert "epoch 2/2" in capsys.readouterr().out
    before = weights.read_bytes()
    zoo.train_recipe(recipe)  # from its checkpoint: nothing is left to train
    assert weights.read_bytes() == before
    assert "epoch" not in capsys.readouterr().out


def test_a_training_that_was_interrupted_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(zoo.train_recipe(recipe).weights)
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", str(tmp_path / "other"))
    plain = zoo.accuracy

    def stop(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "accuracy", stop)  # after the first epoch
    with pytest.raises(KeyboardInterrupt):
        zoo.train_recipe(recipe)
    monkeypatch.setattr(zoo, "accuracy", plain)
    again = load_file(zoo.train_recipe(recipe).weights)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: [", "is not valid YAML"),
        ("backbone: digits-cnn", "dataset"),
        (RECIPE.replace("any_width: false", "any_width: true"), "`any_width: false` must hold"),
        (RECIPE.replace("lr: 0.2", "lr: -1"), "lr > 0"),
        (RECIPE.replace("digits-cnn", "digits-cmm"), "Did you mean 'digits-cnn'"),
    ],
)
def test_a_bad_recipe_is_refused_before_anything_is_trained(
    text: str, message: str, recipe: Path
) -> None:
    recipe.write_text(text)
    with pytest.raises(ValueError, match=message):
        zoo.train_recipe(recipe)
    with pytest.raises(ConfigError, match="There is no recipe"):
        zoo.train_recipe(recipe.with_name("other.yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "zoo").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_zoo_is_what_its_manifests_state(path: Path) -> None:
    """Recipes name what exists; weights, where they are trained already, are the manifest's."""
    recipe = zoo.read_recipe(path)
    backbone = backbones.get(recipe.backbone)
    manifest = path.with_suffix(".json")
    if not manifest.exists():
        return
    told, weights = json.loads(manifest.read_text()), path.with_suffix(".safetensors")
    assert told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert told["training"] == recipe.training.changed()
    info = datasets.get(recipe.dataset) and told["dataset"]
    assert info == recipe.dataset
    backbone(num_classes=10, image_shape=(3, 32, 32)).load_state_dict(load_file(weights))
