"""The built-in backbones: sizes worked out by hand, names of the weights, what is refused."""

from pathlib import Path
from typing import NamedTuple

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


class Executed(NamedTuple):
    conv: int  # MACs
    linear: int


def executed_macs(backbone: nn.Module, image_shape: tuple[int, int, int]) -> Executed:
    """Count one image's MACs from the shapes at each call."""
    conv, linear = [], []

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            conv.append(module.weight.numel() * out.shape[2] * out.shape[3])
        elif isinstance(module, nn.Linear):
            linear.append(module.weight.numel())

    hooks = [module.register_forward_hook(count) for module in backbone.modules()]
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, *image_shape))
    for hook in hooks:
        hook.remove()
    return Executed(sum(conv), sum(linear))


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


def test_mcifarnet_has_the_published_size() -> None:
    # Weights and MACs of each 3x3 convolution (in, out, H = W of the output):
    #   3, 64, 30:      1,728 *   900 =  1,555,200    no padding: 32 - 2 = 30
    #  64, 64, 30:     36,864 *   900 = 33,177,600
    #  64, 128, 15:    73,728 *   225 = 16,588,800    stride 2
    # 128, 128, 15:   147,456 *   225 = 33,177,600    twice
    # 128, 192, 8:    221,184 *    64 = 14,155,776    stride 2: ceil(15 / 2)
    # 192, 192, 8:    331,776 *    64 = 21,233,664    twice
    backbone = create("mcifarnet")
    convs = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert sum(conv.weight.numel() for conv in convs) == 1_291_968
    assert executed_macs(backbone, CIFAR) == (174_299_904, 1_920)


def test_mcifarnet_has_the_published_widths_strides_and_padding() -> None:
    convs = [module for module in create("mcifarnet").modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 64, 128, 128, 128, 192, 192, 192]
    assert [conv.stride[0] for conv in convs] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert [conv.padding[0] for conv in convs] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}


def test_digits_cnn_has_the_size_of_its_docstring() -> None:
    # 1 * 8 * 9 * 64 + 8 * 16 * 9 * 64 on 8x8; 16 * 16 * 9 * 16 + 16 * 32 * 9 * 16 on 4x4.
    conv = 4_608 + 73_728 + 36_864 + 73_728
    assert executed_macs(create("digits-cnn", DIGITS), DIGITS) == (conv, 320)


def test_cluttered_digits_cnn_has_the_size_of_its_docstring() -> None:
    # 1 * 16 * 9 on 32x32; 16 * 32 * 9 on 16x16; 32 * 32 * 9 and 32 * 64 * 9 on 8x8.
    conv = 147_456 + 1_179_648 + 589_824 + 1_179_648
    shape = (1, 32, 32)
    assert executed_macs(create("cluttered-digits-cnn", shape), shape) == (conv, 640)


@pytest.mark.parametrize(
    ("name", "conv", "parameters"),
    [
        ("resnet20-cifar", 40_550_400, 269_722),
        ("resnet32-cifar", 68_861_952, 464_154),
        ("resnet56-cifar", 125_485_056, 853_018),
    ],
)
def test_a_resnet_has_the_published_size(name: str, conv: int, parameters: int) -> None:
    # Each convolution inside a layer costs 16 * 16 * 9 * 1,024 = 2,359,296 MACs: widths double
    # where resolutions halve. The two that widen cost half of that. The stem: 3 * 16 * 9 * 1,024.
    # ResNet-20 has 18 - 2 of the first kind: 16 * 2,359,296 + 2 * 1,179,648 + 442,368, and
    # each step of depth by 12 adds 12 more.
    backbone = create(name)
    assert executed_macs(backbone, CIFAR) == (conv, 640)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


def test_a_shortcut_keeps_each_second_pixel_and_pads_both_ends() -> None:
    image_BCHW = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    out_BCHW = backbones.SubsampleShortcut(1, 5)(image_BCHW)
    assert out_BCHW.shape == (1, 5, 2, 2)
    assert out_BCHW[0, 2].tolist() == [[1, 3], [7, 9]]
    assert out_BCHW.sum() == 1 + 3 + 7 + 9


@pytest.mark.parametrize(("in_planes", "planes"), [(16, 8), (16, 17)])
def test_a_shortcut_that_cannot_pad_evenly_is_refused(in_planes: int, planes: int) -> None:
    with pytest.raises(ConfigError, match=f"in_planes={in_planes}, planes={planes}"):
        backbones.SubsampleShortcut(in_planes, planes)


def test_pixels_are_normalised_and_the_constants_stay_out_of_the_state() -> None:
    normalise = backbones.Normalise([0.5, 0.2], [0.25, 0.1])
    image_BCHW = torch.tensor([1.0, 0.1]).view(1, 2, 1, 1)
    assert normalise(image_BCHW).flatten().tolist() == pytest.approx([2.0, -1.0])
    assert normalise.state_dict() == {}
    assert normalise.to(torch.bfloat16).mean_C11.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.5], [0.5, 0.5], r"`len\(mean\) == len\(std\)`"), ([0.5], [0.0], "`std > 0`")],
)
def test_impossible_constants_are_refused(
    mean: list[float], std: list[float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        backbones.Normalise(mean, std)


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


def pretrained(name: str, weights_dir: Path | None, num_classes: int = 10) -> nn.Module:
    return backbones.create(
        name,
        num_classes=num_classes,
        image_shape=CIFAR,
        weights_dir=weights_dir,
        pretrained=True,
    )


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
