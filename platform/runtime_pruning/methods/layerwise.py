"""The dense network as what constrained agents prune: layer by layer, channels or single weights.

Dimensions: B images, C channels, H W pixels, T layers, F numbers known of each.
"""

import abc
import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.config import Count, CountOrNone, Positive, config_class
from runtime_pruning.datasets import ImageDataset, Split, to_float
from runtime_pruning.methods.widths import best_channels
from runtime_pruning.network.surgery import channel_scores, prunable_groups, pruned
from runtime_pruning.network.weight_sparsity import Masks, apply_masks, magnitude_masks

_EVAL_BATCH = 256


@config_class
class RewardConfig:
    """How a pruned network is judged within an episode.

    Attributes:
        images: of the policy split, that its accuracy is measured on; the same in all episodes.
        calibration_images: of the training split, that batch-norm statistics are taken anew on
            before that; 0 leaves them.
        finetune_lr: Adam's learning rate, where it learns first.
        finetune_batch: images per step.
    """

    images: Count = 2000
    calibration_images: CountOrNone = 512
    finetune_lr: Positive = 3e-4
    finetune_batch: Count = 60


@dataclass(frozen=True)
class PrunedByLayer(abc.ABC):
    """A dense backbone and how what is left of it is judged: a `LayerwiseNetwork`, picklable.

    Attributes:
        dense: the backbone, in evaluation mode; it is not changed.
        image_shape: (C, H, W).
        data: an `ImageDataset`, or a reference to one. Rewards come from its policy split, and
            fine-tuning from its training split; the held-out ones are not read.
        reward: how it is judged.
        device: where it is judged.
    """

    dense: nn.Module
    image_shape: tuple[int, int, int]
    data: ImageDataset | ObjectStoreValue[ImageDataset]
    reward: RewardConfig
    device: str = "cpu"

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the T layers, in the backbone's order."""

    @property
    def layers_TF(self) -> NDArray[np.float64]:
        """Index, channels in and out, kernel, stride and padding of each layer (Malik et al.)."""
        modules = [self.dense.get_submodule(name) for name in self.layers]
        return np.array([[t, *_known(module)] for t, module in enumerate(modules)], np.float64)

    @abc.abstractmethod
    def prune(self, removed_T: NDArray[np.float64], /) -> nn.Module:
        """Return a copy of the backbone without these shares of its layers."""

    def accuracy(self, pruned: nn.Module, /, *, finetune_steps: int, seed: int) -> float:
        """Return the share of images of the policy split that are told rightly.

        Args:
            pruned: of `prune`; it is changed.
            finetune_steps: gradient steps on the training split first.
            seed: of the images that these see.
        """
        data = self.data.get() if isinstance(self.data, ObjectStoreValue) else self.data
        network, rng = pruned.to(self.device), np.random.default_rng(seed)
        if finetune_steps:
            self._finetune(network, data.training, finetune_steps, rng)
        if count := min(self.reward.calibration_images, len(data.training)):
            rows_N = np.sort(rng.permutation(len(data.training))[:count])
            parts = np.array_split(rows_N, -(-count // _EVAL_BATCH))
            update_bn([self._load(data.training, rows_B) for rows_B in parts], network)
        return self._right(network, data.policy.head(min(self.reward.images, len(data.policy))))

    def _load(self, split: Split, rows_B: NDArray[np.int64]) -> Tensor:
        """Return ``images_BCHW``."""
        return to_float(split.images_NCHW[rows_B]).to(self.device)

    def _finetune(
        self, network: nn.Module, split: Split, steps: int, rng: np.random.Generator
    ) -> None:
        """Let a network learn for a few steps; weights that are zero stay so."""
        masks = zero_masks(network)
        adam = torch.optim.Adam(network.parameters(), lr=self.reward.finetune_lr)
        count = min(self.reward.finetune_batch, len(split))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            network.train()
            for _ in range(steps):
                rows_B = np.sort(rng.integers(len(split), size=count))
                labels_B = torch.from_numpy(split.labels_N[rows_B]).to(self.device)
                adam.zero_grad()
                loss = functional.cross_entropy(network(self._load(split, rows_B)), labels_B)
                torch.autograd.backward(loss)
                adam.step()
                apply_masks(network, masks)

    @torch.inference_mode()
    def _right(self, network: nn.Module, split: Split) -> float:
        """Return the share of right answers on a split."""
        network.eval()
        right = 0
        for start in range(0, len(split), _EVAL_BATCH):
            rows_B = np.arange(start, min(start + _EVAL_BATCH, len(split)))
            predicted_B = network(self._load(split, rows_B)).argmax(1).cpu().numpy()
            right += int((predicted_B == split.labels_N[rows_B]).sum())
        return right / len(split)


@dataclass(frozen=True)
class ChannelLayers(PrunedByLayer):
    """Layers lose output channels, of the least norm first, with all that is tied to them."""

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The first layer of each group of channels that go together."""
        return tuple(group.name for group in prunable_groups(self.dense, self.image_shape))

    @cached_property
    def _scores(self) -> dict[str, Tensor]:
        """``scores_C`` by group."""
        return channel_scores(self.dense, self.image_shape, norm=1)

    def prune(self, removed_T: NDArray[np.float64], /) -> nn.Module:
        """Return the backbone after surgery; each layer keeps one channel at least."""
        scores = self._scores
        keep = {
            name: best_channels(scores[name], kept_count(len(scores[name]), share))
            for name, share in zip(self.layers, removed_T, strict=True)
        }
        return pruned(self.dense, self.image_shape, keep).backbone


@dataclass(frozen=True)
class WeightLayers(PrunedByLayer):
    """Convolutions lose single weights, the smallest first, as in the released code."""

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """All convolutions; linear layers stay whole."""
        named = self.dense.named_modules()
        return tuple(name for name, module in named if isinstance(module, nn.Conv2d))

    def prune(self, removed_T: NDArray[np.float64], /) -> nn.Module:
        """Return the backbone with these weights at zero."""
        shares = zip(self.layers, removed_T, strict=True)
        masks = magnitude_masks(self.dense, {n: max(1 - float(r), 1e-9) for n, r in shares})
        sparse = copy.deepcopy(self.dense)
        apply_masks(sparse, masks)
        return sparse


def kept_count(channels: int, removed: float) -> int:
    """Return how many channels stay where a share is removed: one at least."""
    return max(1, round((1 - float(removed)) * channels))


def zero_masks(network: nn.Module) -> Masks:
    """Return masks of the layers that have weights at zero: what is pruned stays pruned."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    masks = {name: module.weight.detach() != 0 for name, module in layers.items()}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _known(module: Any) -> tuple[float, ...]:
    """Return channels in and out, kernel, stride and padding of a layer."""
    if isinstance(module, nn.Linear):
        return (module.in_features, module.out_features, 1, 1, 1, 1, 0, 0)
    padding = module.padding
    if isinstance(padding, str):
        padding = tuple(k // 2 if padding == "same" else 0 for k in module.kernel_size)
    return (
        module.in_channels,
        module.out_channels,
        *module.kernel_size,
        *module.stride,
        *padding,
    )
