"""The dense network, pruned layer by layer: by surgery or masks; and how it is judged."""

import numpy as np
import pytest
import torch
from torch import nn

from pruning_envs import LayerwiseNetwork
from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.methods.layerwise import (
    ChannelLayers,
    RewardConfig,
    WeightLayers,
    kept_count,
    zero_masks,
)

SHAPE = (1, 8, 8)
REWARD = RewardConfig(images=64, calibration_images=64, finetune_lr=1e-2, finetune_batch=32)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return datasets.load("digits", None, {})


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE).eval()


def test_what_is_known_of_layers_by_hand(dense: nn.Module, data: ImageDataset) -> None:
    channels = ChannelLayers(dense, SHAPE, data, REWARD)
    assert isinstance(channels, LayerwiseNetwork)
    assert channels.layers == ("conv1", "conv2", "conv3", "conv4")
    # Index, in, out, kernel, stride, padding.
    assert channels.layers_TF[1].tolist() == [1, 8, 16, 3, 3, 1, 1, 1, 1]


def test_channels_go_for_good_those_of_least_norm_first(
    dense: nn.Module, data: ImageDataset
) -> None:
    layers = ChannelLayers(dense, SHAPE, data, REWARD)
    small = layers.prune(np.array([0.0, 0.5, 0.9, 1.0]))
    widths = [small.get_parameter(f"{name}.weight").shape[0] for name in layers.layers]
    assert widths == [8, 8, 2, 1]
    scores = layers._scores["conv2"]
    kept = small.kept_channels["conv2"]
    assert min(scores[kept]) >= max(scores[[c for c in range(16) if c not in kept]])
    assert dense.get_parameter("conv2.weight").shape[0] == 16


def test_weights_are_zero_and_stay_so_while_it_learns(dense: nn.Module, data: ImageDataset) -> None:
    layers = WeightLayers(dense, SHAPE, data, REWARD)
    sparse = layers.prune(np.array([0.0, 0.5, 0.75, 0.9]))
    zeros = {name: int((~mask).sum()) for name, mask in zero_masks(sparse).items()}
    counts = {name: sparse.get_parameter(f"{name}.weight").numel() for name in layers.layers}
    assert zeros["conv2"] == counts["conv2"] // 2
    assert zeros["conv3"] == counts["conv3"] * 3 // 4
    assert "conv1" not in zeros
    before = sparse.get_parameter("conv3.weight").clone()
    layers.accuracy(sparse, finetune_steps=2, seed=0)
    after = sparse.get_parameter("conv3.weight")
    assert ((before == 0) == (after == 0)).all()
    assert not torch.equal(before, after)


def test_fine_tuning_helps_and_equal_seeds_give_equal_answers(
    dense: nn.Module, data: ImageDataset
) -> None:
    layers = ChannelLayers(dense, SHAPE, data, REWARD)

    def accuracy(steps: int, seed: int = 3) -> float:
        return layers.accuracy(layers.prune(np.full(4, 0.25)), finetune_steps=steps, seed=seed)

    learned = accuracy(60)
    assert learned == accuracy(60)
    assert learned > accuracy(0) + 0.3  # the weights are random at first


def test_held_out_images_are_not_read(dense: nn.Module, data: ImageDataset) -> None:
    unread = ImageDataset.__new__(ImageDataset)
    for name in ("training", "policy"):
        object.__setattr__(unread, name, getattr(data, name))
    layers = ChannelLayers(dense, SHAPE, unread, REWARD)
    assert 0 <= layers.accuracy(layers.prune(np.zeros(4)), finetune_steps=1, seed=0) <= 1


@pytest.mark.parametrize(
    ("channels", "removed", "kept"), [(16, 0.5, 8), (16, 0.9, 2), (16, 0.0, 16), (4, 1.0, 1)]
)
def test_a_layer_keeps_one_channel_at_least(channels: int, removed: float, kept: int) -> None:
    assert kept_count(channels, removed) == kept
