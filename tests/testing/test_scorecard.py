"""The scorecard names each fault: backbones that are broken on purpose, one fault each."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.backbones import catalogue
from runtime_pruning.cli import main
from runtime_pruning.network import per_channel, trace, tracing
from runtime_pruning.testing import contract
from runtime_pruning.testing.contract import ELSEWHERE, try_clauses
from runtime_pruning.testing.scorecard import Scorecard, score

SHAPE = (3, 8, 8)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of faulty backbones, importable here and in other processes."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("faulty_backbones")


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of its own: what is registered stays registered."""
    monkeypatch.setattr(catalogue, "_registry", catalogue.Registry("backbone", "no.such.group"))


def register(module: Any) -> None:
    @backbones.register("faulty")
    def factory(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        return module(num_classes)


def failed(card: Scorecard) -> dict[str, str]:
    return {clause.name: clause.reason for clause in card.clauses if clause.passed is False}


@pytest.mark.usefixtures("own_registry")
def test_a_sound_backbone_passes_every_clause(faulty: ModuleType) -> None:
    register(faulty.Sound)
    card = score("faulty", image_shape=SHAPE)
    assert failed(card) == {}
    assert card.passed
    assert len(card.clauses) == 12
    # 8x8 pixels: 3*8*9, 8*16*9 and 16*16*9 per pixel, and 16*10.
    assert card.dense_macs == 64 * (216 + 1_152 + 2_304) + 160
    assert [site.name for site in card.sites] == ["conv1", "conv2"]
    assert "   0  conv1     8    16      4  0 4 8 12 16  (8 is too coarse)" in str(card)
    assert "12 of 12 clauses passed" in str(card)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("name", "clause", "reason"),
    [
        ("TooManyLogits", "it is a module from images to logits", r"\(1, 10\).*\(1, 20\)"),
        ("LooksAtTheData", "its sites can be found", "torch.fx cannot follow LooksAtTheData"),
        ("CallsTwice", "its sites can be found", r"'conv1': node .* used twice; 'conv2': .* twice"),
        ("NoSite", "its sites can be found", "No site found"),
        ("Noisy", "logits depend on the image, and on nothing else", "In evaluation mode, logits"),
        ("Constant", "logits depend on the image, and on nothing else", "the same logits"),
        ("TrainsOtherwise", "its sites can be found", "branches on `self.training`"),
        ("WronglyDeclared", "sliced equals masked", r"inputs of site 1 \(conv2\).* differ by"),
        ("LooksAtOthers", "batch modes agree", "an image alone and in a batch differ by"),
    ],
)
def test_each_fault_is_named(
    name: str, clause: str, reason: str, faulty: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_is(module: nn.Module, features: Tensor, present_BC: Tensor | None) -> Tensor:
        return module(features)

    monkeypatch.setitem(per_channel._RULES, nn.Softmax2d, as_it_is)
    monkeypatch.setattr(tracing, "verify", lambda network: None)  # the clauses see it themselves
    monkeypatch.delitem(contract.PROMISES, ELSEWHERE)
    register(getattr(faulty, name))
    card = score("faulty", image_shape=SHAPE)
    assert not card.passed
    found = failed(card)
    assert clause in found
    assert re.search(reason, found[clause]), found[clause]
    assert f"FAILED   {clause}: " in str(card)


@pytest.mark.usefixtures("own_registry")
def test_widths_that_change_the_picture_are_seen_in_the_macs(
    faulty: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrinks(module: nn.Module, features: Tensor, present_BC: Tensor | None) -> Tensor:
        return features if features.shape[1] == 16 else features[:, :, ::2, ::2]

    monkeypatch.setattr(tracing, "verify", lambda network: None)
    monkeypatch.setitem(per_channel._RULES, nn.Softmax2d, shrinks)
    monkeypatch.delitem(contract.PROMISES, ELSEWHERE)
    register(faulty.WronglyDeclared)
    found = failed(score("faulty", image_shape=SHAPE))
    assert "MACs were executed" in found["executed MACs equal analytic MACs"]


def test_macs_that_nobody_counts_are_named(faulty: ModuleType) -> None:
    network = trace(faulty.Sound(10), SHAPE)
    network.priced_units = network.priced_units[1:]  # without the first convolution's
    name = "PyTorch counts the same MACs"
    (clause,) = try_clauses(network, without=set(contract.PROMISES) - {name})
    assert clause.reason == "PyTorch counts 235,168 MACs, we count 221,344."


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "MixesChannels",
            "conv1  node 'softmax' (softmax) reads its channels and needs all of them",
        ),
        ("HiddenMultiplications", "dense MACs per image: 235,744"),  # 8x8 pixels, 3*3 each
    ],
)
def test_what_stays_whole_passes_and_is_told(
    name: str, said: str, faulty: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(contract.PROMISES, ELSEWHERE)
    register(getattr(faulty, name))
    card = score("faulty", image_shape=SHAPE)
    assert failed(card) == {}
    assert said in str(card)
    assert "first  nothing has been seen before it" in str(card)


@pytest.mark.usefixtures("own_registry")
def test_what_cannot_travel_is_named(faulty: ModuleType) -> None:
    register(faulty.CannotTravel)
    found = failed(score("faulty", image_shape=SHAPE))
    assert list(found) == [ELSEWHERE]
    assert "lambda" in found[ELSEWHERE]


@pytest.mark.usefixtures("own_registry")
def test_what_is_no_module_is_named_and_nothing_else_is_tried() -> None:
    register(lambda num_classes: None)
    card = score("faulty", image_shape=SHAPE)
    assert failed(card) == {
        "it is a module from images to logits": (
            "The backbone 'faulty' must be an nn.Module, but got None."
        )
    }
    assert [clause.passed for clause in card.clauses] == [False, *[None] * 11]
    assert "not run  sliced equals masked" in str(card)


# The command


@pytest.mark.usefixtures("own_registry")
def test_the_exit_code_tells_a_broken_backbone(
    faulty: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    register(faulty.NoSite)
    assert main(["check-backbone", "faulty", "--image-shape", "3,8,8"]) == 1
    assert "FAILED   its sites can be found: No site found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20-cifr"], "Did you mean 'resnet20-cifar'?"),
        (["digits-cnn", "--groups", "0"], "`groups` and `align` must be >= 1, but got 0 and 8."),
        (["digits-cnn", "--image-shape", "1,2,2"], "cannot take images of shape (1, 2, 2)"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-backbone", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
