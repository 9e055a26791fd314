"""Slices of weights: prepared once, and dropped when the weights change."""

import pickle

import torch
from torch import nn

from runtime_pruning.network.weight_slices import SliceCache


def test_a_slice_is_prepared_once_until_the_weights_change() -> None:
    conv, cache = nn.Conv2d(4, 8, 3), SliceCache()
    with torch.no_grad():
        cache.refresh([conv.weight])
        first = cache.get("conv", "convolution", conv, 2, 6)
        assert torch.equal(first.weight, conv.weight[:6, :2])
        assert conv.bias is not None
        assert first.bias is not None
        assert torch.equal(first.bias, conv.bias[:6])
        assert first.weight.is_contiguous()
        cache.refresh([conv.weight])
        assert cache.get("conv", "convolution", conv, 2, 6).weight is first.weight
        conv.weight.add_(1.0)
        cache.refresh([conv.weight])
        again = cache.get("conv", "convolution", conv, 2, 6)
        assert torch.equal(again.weight, conv.weight[:6, :2])
        assert cache.get("conv", "convolution", conv, 4, 8).weight is conv.weight


def test_what_autograd_must_see_is_a_view() -> None:
    linear, cache = nn.Linear(4, 3), SliceCache()
    cache.get("linear", "linear", linear, 2, 3).weight.sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]] * 3


def test_slices_do_not_travel() -> None:
    conv, cache = nn.Conv2d(4, 8, 3), SliceCache()
    with torch.no_grad():
        cache.get("conv", "convolution", conv, 2, 6)
    assert pickle.loads(pickle.dumps(cache))._prepared == {}
