"""A pruned network learns from its teacher, within its budget, and goes on where it stopped."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import to_float
from runtime_pruning.errors import ConfigError
from runtime_pruning.network.finetuning import FinetuneConfig, distil
from runtime_pruning.network.surgery import pruned
from runtime_pruning.network.trainer import EpochReport, TrainConfig
from runtime_pruning.network.weight_sparsity import magnitude_masks

DATA = datasets.load("digits")
SHAPE = (1, 8, 8)


def dense() -> nn.Module:
    return backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    logits_BK = network(to_float(DATA.validation.images_NCHW))
    return float((logits_BK.argmax(1).numpy() == DATA.validation.labels_N).mean())


def test_a_pruned_network_learns_what_its_teacher_knows() -> None:
    """Soft targets alone: no label is read, so what it learns is the teacher's."""
    teacher = dense()
    distil(teacher, DATA.training, TrainConfig(epochs=4, batch_size=32, any_width=False))
    keep = {"conv2": range(8), "conv3": range(8), "conv4": range(16)}
    student = pruned(teacher, SHAPE, keep).backbone.eval()
    before = accuracy(student)
    settings = FinetuneConfig(epochs=3, batch_size=32, lr=0.05, distillation=1.0)
    report = distil(student, DATA.training, settings.training(seed=0), teacher=teacher)
    assert report.steps == 3 * (len(DATA.training) // 32)
    assert before + 0.2 < accuracy(student) > 0.85
    assert not student.training


def test_stopped_and_resumed_is_never_stopped(tmp_path: Path) -> None:
    teacher, settings = dense(), FinetuneConfig(epochs=2, batch_size=64).training(seed=3, pad=1)
    student = pruned(teacher, SHAPE, {"conv4": range(20)}).backbone
    straight, stopped, resumed = (copy.deepcopy(student) for _ in range(3))
    images, file = DATA.training.head(256), tmp_path / "finetuning.pt"

    def pull_the_plug(report: EpochReport) -> None:
        raise KeyboardInterrupt

    distil(straight, images, settings, teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        distil(
            *(stopped, images, settings), teacher=teacher, checkpoint=file, on_epoch=pull_the_plug
        )
    distil(resumed, images, settings, teacher=teacher, checkpoint=file)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert not torch.equal(
        straight.state_dict()["conv4.weight"], stopped.state_dict()["conv4.weight"]
    )
    with pytest.raises(ConfigError, match="of another training"):
        distil(resumed, images, FinetuneConfig(epochs=3).training(seed=3), checkpoint=file)


def test_masked_weights_stay_zero_while_the_others_learn() -> None:
    student = dense()
    masks = magnitude_masks(student, {"conv3": 0.25})
    start = student.get_parameter("conv3.weight").detach().clone()
    settings = FinetuneConfig(epochs=1, batch_size=64).training(seed=0)
    distil(student, DATA.training.head(256), settings, masks=masks)
    weight = student.get_parameter("conv3.weight").detach()
    assert int(weight.count_nonzero()) == 16 * 16 * 9 // 4
    assert not weight[~masks["conv3"]].any()
    assert not torch.equal(weight[masks["conv3"]], start[masks["conv3"]])


def test_a_wrong_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="`epochs >= 0` must hold, but got -1"):
        FinetuneConfig(epochs=-1)
