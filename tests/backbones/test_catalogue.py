"""What all built-in backbones have in common, names of the weights, what is refused."""

from pathlib import Path

import pytest
import torch
import torch.fx
from safetensors.torch import save_file
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.backbones import catalogue
from runtime_pruning.errors import ConfigError, ContractError, DataError

CIFAR = (3, 32, 32)
DIGITS = (1, 8, 8)
BUILT_IN = [
    "cluttered-digits-cnn",
    "digits-cnn",
    "mcifarnet",
    "resnet20-cifar",
    "resnet32-cifar",
    "resnet56-cifar",
]


PLAIN = (
    nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear,
    nn.Identity, backbones.Normalise, backbones.SubsampleShortcut,
)  # fmt: skip


def create(name: str, image_shape: tuple[int, int, int] = CIFAR) -> nn.Module:
    return backbones.create(name, num_classes=10, image_shape=image_shape)


def pretrained(name: str, weights_dir: Path | None, num_classes: int = 10) -> nn.Module:
    return backbones.create(
        name,
        num_classes=num_classes,
        image_shape=CIFAR,
        weights_dir=weights_dir,
        pretrained=True,
    )


def test_the_built_in_backbones_are_known() -> None:
    assert set(BUILT_IN) <= set(backbones.names())
    assert backbones.get("mcifarnet")(num_classes=3, image_shape=CIFAR)[-1].out_features == 3


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("image_shape", [CIFAR, DIGITS, (2, 12, 10)])
def test_it_maps_images_of_any_shape_to_logits(
    name: str, image_shape: tuple[int, int, int]
) -> None:
    backbone = backbones.create(name, num_classes=7, image_shape=image_shape)
    assert backbone.training
    assert backbone(torch.rand(3, *image_shape)).shape == (3, 7)


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_is_traceable_and_made_of_plain_modules(name: str) -> None:
    backbone = create(name).eval()
    leaves = [module for module in backbone.modules() if not list(module.children())]
    assert {type(leaf) for leaf in leaves} <= set(PLAIN)
    assert isinstance(leaves[0], backbones.Normalise)
    images_BCHW = torch.rand(2, *CIFAR)
    traced = torch.fx.symbolic_trace(backbone)
    assert torch.equal(traced(images_BCHW), backbone(images_BCHW))


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_learns_by_gradient_everywhere(name: str) -> None:
    backbone = create(name)
    backbone(torch.rand(4, *CIFAR)).square().sum().backward()
    for parameter in backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, same, other = (
        backbones.create("digits-cnn", num_classes=10, image_shape=DIGITS, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    images_BCHW = torch.rand(2, *DIGITS)
    assert torch.equal(first.eval()(images_BCHW), same.eval()(images_BCHW))
    assert not torch.equal(first(images_BCHW), other.eval()(images_BCHW))


@pytest.mark.parametrize(
    ("num_classes", "image_shape", "message"),
    [
        (1, DIGITS, "`num_classes >= 2` must hold, but got 1"),
        (10, (8, 8), r"must be \(C, H, W\), each >= 1, but got \(8, 8\)"),
        (10, (1, 0, 8), "each >= 1"),
        (10, (1, 2, 2), r"'digits-cnn' cannot take images of shape \(1, 2, 2\)"),
    ],
)
def test_impossible_sizes_are_refused(
    num_classes: int, image_shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        backbones.create("digits-cnn", num_classes=num_classes, image_shape=image_shape)


@pytest.mark.parametrize(
    ("returned", "message"),
    [(None, "must be an nn.Module, but got None"), (nn.Flatten(), r"shape \(1, 10\).*\(1, 64\)")],
)
def test_a_factory_that_returns_something_else_is_refused(
    returned: nn.Module | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A registry of its own: what is registered stays registered.
    monkeypatch.setattr(catalogue, "_registry", catalogue.Registry("backbone", "no.such.group"))

    @backbones.register("broken")
    def broken(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        return returned  # type: ignore[return-value]

    with pytest.raises(ContractError, match=message):
        backbones.create("broken", num_classes=10, image_shape=DIGITS)


def test_weights_are_loaded_from_a_folder_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = backbones.create("resnet20-cifar", num_classes=10, image_shape=CIFAR, seed=9)
    save_file(origin.state_dict(), tmp_path / "cifar10-resnet20.safetensors")
    monkeypatch.setenv("RUNTIME_PRUNING_WEIGHTS", str(tmp_path))
    for backbone in (pretrained("resnet20-cifar", tmp_path), pretrained("resnet20-cifar", None)):
        for name, tensor in backbone.state_dict().items():
            assert torch.equal(tensor, origin.state_dict()[name]), name


def test_a_backbone_without_published_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'mcifarnet' has no published weights"):
        pretrained("mcifarnet", tmp_path)


def test_an_unnamed_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_PRUNING_WEIGHTS", raising=False)
    with pytest.raises(DataError, match=r"resnet56\.safetensors.*set RUNTIME_PRUNING_WEIGHTS"):
        pretrained("resnet56-cifar", None)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10-resnet32\.safetensors': no such file"):
        pretrained("resnet32-cifar", tmp_path)


def test_weights_that_leave_a_tensor_out_are_refused(tmp_path: Path) -> None:
    state = create("resnet20-cifar").state_dict()
    del state["layer2.0.conv1.weight"]
    save_file(state, tmp_path / "cifar10-resnet20.safetensors")
    with pytest.raises(DataError, match=r"do not fit: .*layer2\.0\.conv1\.weight"):
        pretrained("resnet20-cifar", tmp_path)


def test_weights_for_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    state = create("resnet20-cifar").state_dict()
    save_file(state, tmp_path / "cifar10-resnet20.safetensors")
    with pytest.raises(DataError, match=r"size mismatch for linear\.weight"):
        pretrained("resnet20-cifar", tmp_path, num_classes=5)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar10-resnet20.safetensors").write_bytes(b"not at all")
    with pytest.raises(DataError, match="do not fit"):
        pretrained("resnet20-cifar", tmp_path)
