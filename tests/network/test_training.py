"""It learns digits at all widths; it resumes bit for bit; statistics worked out by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import Split, TrainingSplit, to_float
from runtime_pruning.network import PrunableNetwork, order_channels, trace
from runtime_pruning.network.batch_norm import is_conditioned
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy, Policy, RandomPolicy
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import finetune, recalibrate_batch_norm, train

DATA = datasets.load("digits")
SHORT = TrainConfig(epochs=3, batch_size=64, lr=0.1, pad=1, calibration_images=128)


def digits_net() -> PrunableNetwork:
    return trace(backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8)), (1, 8, 8))


@torch.no_grad()
def accuracy(network: PrunableNetwork, policy: Policy, split: Split = DATA.validation) -> float:
    logits_BK = network.execute(to_float(split.images_NCHW), policy).logits_BK
    return float((logits_BK.argmax(1).numpy() == split.labels_N).mean())


def state(network: PrunableNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


class FakeSplit:
    """One-pixel images of the given brightness."""

    def __init__(self, pixels: np.ndarray[Any, Any]) -> None:
        self.images_NCHW = pixels.reshape(-1, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.images_NCHW)


def identity_net() -> PrunableNetwork:
    """Return a net whose site has two channels: the pixel (0 to 255) and twice that."""
    backbone = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False),
        nn.Conv2d(1, 2, 1, bias=False),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    with torch.no_grad():
        backbone[0].weight.fill_(255.0)
        backbone[1].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
    return trace(backbone, (1, 1, 1), groups=2).eval()


class Kinds:
    """Some images run narrow, for what they show; the others wide."""

    name = "kinds"
    macs_per_image = 0

    def __init__(self, groups: int, least: float) -> None:
        self.groups, self.least = groups, least
        self.chosen_B = torch.zeros(0)

    def start(self, batch: int) -> "Kinds":
        return self

    def choose(self, site: int, features_BF: torch.Tensor) -> torch.Tensor:
        if site == 0:
            self.chosen_B = torch.where(features_BF.mean(1) > self.least, self.groups, 1)
        return self.chosen_B


def test_it_learns_digits_at_every_width() -> None:
    network = digits_net()
    config = TrainConfig(epochs=8, batch_size=64, lr=0.1, calibration_images=512)
    report = train(network, DATA.training, config, progress=False)
    assert not network.training
    assert report.steps == 8 * (len(DATA.training) // 64)
    assert report.epochs[0].loss > report.epochs[-1].loss
    for groups in (1, 2, 4):
        policy = FixedPolicy([groups] * 3)
        recalibrate_batch_norm(network, DATA.training, policy)
        assert accuracy(network, policy) > 0.9


def test_finetuning_helps_the_plans_that_it_is_given() -> None:
    network = digits_net()
    config = TrainConfig(epochs=4, batch_size=64, lr=0.1, any_width=False)
    train(network, DATA.training, config, progress=False)
    order_channels(network)
    policy = RandomPolicy(4, 3, seed=0)
    before = accuracy(network, policy)
    for mode in ("sliced", "masked"):
        tuned = TrainConfig(epochs=1, batch_size=64, lr=0.05, mode=mode)
        finetune(network, DATA.training, policy, tuned)
    assert accuracy(network, policy) > before + 0.05


def test_a_teacher_is_learned_from_whatever_the_labels_say() -> None:
    teacher, network = digits_net(), digits_net()
    train(teacher, DATA.training, SHORT, progress=False)
    with torch.no_grad():  # it takes 3 for 4, and so on
        teacher.backbone.linear.weight.copy_(teacher.backbone.linear.weight.roll(1, 0))
        teacher.backbone.linear.bias.copy_(teacher.backbone.linear.bias.roll(1, 0))
    config = TrainConfig(epochs=4, batch_size=64, lr=0.05, distillation=1.0)
    everything = FixedPolicy([4] * 3)
    finetune(network, DATA.training, everything, config, teacher=teacher)
    images_BCHW = to_float(DATA.validation.images_NCHW)
    with torch.no_grad():
        agreed = network(images_BCHW).argmax(1) == teacher(images_BCHW).argmax(1)
    assert float(agreed.float().mean()) > 0.7
    assert accuracy(network, everything) < 0.2


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    network = digits_net()
    before = state(network)
    config = TrainConfig(epochs=1, batch_size=64, lr=0.01, freeze_batch_norm=True)
    finetune(network, DATA.training.head(64), FixedPolicy([2, 2, 2]), config)
    after = state(network)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.bn2.weight" in moved
    assert not [name for name in moved if "running" in name]


def test_only_what_is_asked_for_learns() -> None:
    """A site's last channels learn from the full network alone, its first from any pass."""
    moved = {}
    for name, parts in {
        "narrow": {"full_weight": 0.0, "random_plans": 0},
        "full": {"smallest": False, "random_plans": 0},
        "all": {"random_plans": 0},
    }.items():
        network = digits_net()
        weight = network.backbone.conv2.weight
        before = weight.detach().clone()
        config = TrainConfig(epochs=1, batch_size=64, lr=0.1, weight_decay=0.0, **parts)
        train(network, DATA.training.head(64), config, progress=False)
        changed_C = (weight != before).flatten(1).any(1)
        moved[name] = (bool(changed_C[:4].any()), bool(changed_C[4:].any()))
    assert moved == {"narrow": (True, False), "full": (True, True), "all": (True, True)}


@torch.no_grad()
def test_recalibrated_statistics_by_hand() -> None:
    network = identity_net()
    pixels = np.array([3, 5, 9, 7], dtype=np.uint8)
    split: Any = FakeSplit(pixels)
    plans_BL = torch.tensor([[1], [2], [2], [1]])
    norm = network.backbone[2]
    norm.running_mean.fill_(99.0)
    for plan_BL in (plans_BL, plans_BL[:, :1] * 0 + 1):
        recalibrate_batch_norm(network, split, PlanPolicy(plan_BL), batches=1)
        # Channel 0 over all images: mean 6, squares 9 + 1 + 9 + 1 over 3; channel 1, doubled,
        # over the images of two groups: 10 and 18, then over none: left alone.
        assert norm.running_mean.tolist() == pytest.approx([6.0, 14.0])
        assert norm.running_var.tolist() == pytest.approx([20 / 3, 32.0])
    assert not network.training


def test_batches_of_unequal_counts_average_over_images() -> None:
    network = identity_net()
    split: Any = FakeSplit(np.array([3, 5, 10], dtype=np.uint8))
    recalibrate_batch_norm(network, split, FixedPolicy([2]), batches=2, batch_size=2)
    assert network.backbone[2].running_mean.tolist() == pytest.approx([6.0, 12.0])


@torch.no_grad()
def test_statistics_of_a_width_are_of_all_images_not_of_those_that_choose_it() -> None:
    network = digits_net().eval()
    network.condition_batch_norm()
    images_NCHW = DATA.training.images_NCHW.copy()
    images_NCHW[::2] //= 8
    mixed = TrainingSplit.from_arrays(DATA.info, images_NCHW, DATA.training.labels_N)
    shown_B = network.start(to_float(images_NCHW)).features_BF.mean(1)
    kinds = Kinds(network.groups, float(shown_B.median()))
    own = mixed.take(np.flatnonzero((shown_B <= kinds.least).numpy()))
    narrow = FixedPolicy([1] * len(network.sites))

    def means(split: TrainingSplit, policy: Policy) -> torch.Tensor:
        taken = copy.deepcopy(network)
        recalibrate_batch_norm(taken, split, policy, batches=4)
        norms = [module for module in taken.modules() if is_conditioned(module)]
        return torch.cat([norm.get_buffer("narrow_means")[:4, 0] for norm in norms])

    assert 0.4 < len(own) / len(mixed) < 0.6
    of_all, of_own = means(mixed, narrow), means(own, narrow)
    found = means(mixed, kinds)
    assert (found - of_all).norm() < 0.5 * (of_own - of_all).norm()
