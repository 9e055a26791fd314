"""Costs of whole networks, by hand; measured ones against what is known of them."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.cost import whole
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.cost.whole import network_cost
from runtime_pruning.errors import ConfigError, UnknownNameError
from runtime_pruning.network import trace
from runtime_pruning.network.surgery import prunable_groups, pruned

SHAPE = (1, 4, 4)


def chain(channels: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(channels, 3, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(3 * 16, 2, bias=False),
    )


def test_parameters_and_macs_by_hand_with_and_without_weights_that_are_zero() -> None:
    network = chain()
    macs, parameters = (network_cost(name, network, SHAPE) for name in ("macs", "parameters"))
    assert parameters(network) == 2 * 9 + 2 * 3 * 9 + 48 * 2
    assert macs(network) == 16 * (2 * 9 + 2 * 3 * 9) + 48 * 2
    weight = network.get_parameter("0.weight")
    weight.data[0] = 0
    assert parameters(network) == 9 + 2 * 3 * 9 + 48 * 2
    assert macs(network) == 16 * (9 + 2 * 3 * 9) + 48 * 2


def test_peak_activations_by_hand() -> None:
    network = chain()
    peak = network_cost("peak-activations", network, SHAPE)
    # The ReLU's input and output, the image still held by its caller: 16 + 32 + 32 floats; the
    # second convolution, whose input no longer is needed after it: 16 + 32 + 48.
    assert peak(network) == 4 * (16 + 32 + 48)
    assert peak(chain(channels=4)) == 4 * (16 + 64 + 64)
    assert network.training  # as it was


def test_after_surgery_macs_are_those_of_the_traced_network() -> None:
    shape = (1, 8, 8)
    dense = backbones.create("digits-cnn", num_classes=10, image_shape=shape)
    small = pruned(dense, shape, {"conv2": [0, 1, 2], "conv4": list(range(10))}).backbone
    macs = network_cost("macs", dense, shape)
    assert macs(dense) == dense_macs(trace(dense, shape, groups=1))
    assert macs(small) == dense_macs(trace(small, shape, groups=1)) < macs(dense)


def test_milliseconds_tell_a_network_of_many_macs_from_one_of_few() -> None:
    shape = (1, 16, 16)
    wide, narrow = (
        nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Flatten(),
            nn.Linear(channels * 256, 2),
        )
        for channels in (96, 8)
    )
    cost = pickle.loads(pickle.dumps(network_cost("milliseconds", wide, shape)))
    threads = torch.get_num_threads()
    whole_ms, narrow_ms = cost(wide), cost(narrow)
    assert 0 < narrow_ms < 0.5 * whole_ms
    assert torch.get_num_threads() == threads
    again = pickle.loads(pickle.dumps(cost))  # what is deployed stays behind
    assert again._whole is None


def test_a_users_function_is_imported_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_costs.py").write_text(
        "energy = lambda network: 3 + len(list(network.parameters()))\n"
        "nothing = lambda network: 0\n"
        "words = lambda network: 'dear'\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = chain()
    cost = pickle.loads(pickle.dumps(network_cost("my_costs:energy", network, SHAPE)))
    assert cost(network) == 6
    for name, message in (
        ("nothing", "`0 < cost < inf` must hold for 'my_costs:nothing', but got 0"),
        ("words", "must return a number, but got 'dear'"),
    ):
        with pytest.raises(ConfigError, match=message):
            network_cost(f"my_costs:{name}", network, SHAPE)(network)
    for name in ("my_costs:number", "my_costs:missing", "no_such_costs:energy"):
        with pytest.raises(ConfigError, match=name):
            whole.check_name(name)
    sys.modules.pop("my_costs")


def test_an_unknown_cost_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'parameters'"):
        whole.check_name("parameter")


def test_macs_of_a_pruned_residual_network_are_those_that_it_executes() -> None:
    shape = (3, 8, 8)
    dense = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    cost = network_cost("macs", dense, shape)
    assert cost(dense) == dense_macs(trace(dense, shape, groups=1))
    keep = {group.name: range(1, group.channels, 2) for group in prunable_groups(dense, shape)}
    result = pruned(dense, shape, keep).backbone
    assert cost(result) == dense_macs(trace(result, shape, groups=1))
