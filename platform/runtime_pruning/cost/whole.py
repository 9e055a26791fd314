"""What a whole network costs: any function that can be evaluated, with a gradient or without.

A cost is named: ``parameters``, ``macs``, ``peak-activations``, ``milliseconds``, what a third
party files under ``runtime_pruning.network_costs``, or a user's own ``module:function``, which is
given the network and returns a number above 0.

Dimensions: B images, C channels, H W pixels.
"""

import copy
import importlib
import math
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruning_envs import NetworkCost
from runtime_pruning.backbones.layers import SelectingShortcut, SubsampleShortcut
from runtime_pruning.cost.pruned_macs import positions
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import trace
from runtime_pruning.network.weight_sparsity import nonzero_parameters
from runtime_pruning.registry import Registry

ImageShape = tuple[int, int, int]
NetworkCostFactory = Callable[[nn.Module, ImageShape], NetworkCost]

_COSTS: Registry[NetworkCostFactory] = Registry("network cost", "runtime_pruning.network_costs")

register = _COSTS.register


def names() -> list[str]:
    """Return the names of all known costs of whole networks."""
    return sorted(_COSTS)


def network_cost(name: str, dense: nn.Module, image_shape: ImageShape) -> NetworkCost:
    """Return a cost of networks that surgery makes of a dense one; it pickles.

    Args:
        name: of a registered cost, or ``module:function``.
        dense: the whole network.
        image_shape: (C, H, W).

    Raises:
        UnknownNameError: no such cost.
        ConfigError: no such module or function.
    """
    check_name(name)
    return UserCost(name) if ":" in name else _COSTS.get(name)(dense, image_shape)


def check_name(name: str) -> None:
    """Raise what `network_cost` raises of a name, before there is a network."""
    if ":" in name:
        UserCost(name).function()
    else:
        _COSTS.get(name)


@dataclass(frozen=True)
class UserCost:
    """A user's function of the pruned network; each process imports it for itself.

    Attributes:
        name: ``module:function``.
    """

    name: str

    def __call__(self, pruned: nn.Module, /) -> float:
        """Return what the function says.

        Raises:
            ConfigError: no number above 0.
        """
        found = self.function()(pruned)
        if isinstance(found, bool) or not isinstance(found, int | float | np.number):
            raise ConfigError(f"Cost {self.name!r} must return a number, but got {found!r}.")
        if not 0 < float(found) < math.inf:
            raise ConfigError(f"`0 < cost < inf` must hold for {self.name!r}, but got {found}.")
        return float(found)

    def function(self) -> Callable[[nn.Module], Any]:
        """Return the function.

        Raises:
            ConfigError: there is none of that name.
        """
        module, _, attribute = self.name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"A cost `module:function` must be importable, but got {self.name!r}: {error}. "
                "A module of yours travels to workers as a plugin: `plugins: [module]`."
            ) from error
        if not callable(found):
            raise ConfigError(f"Cost {self.name!r} must be a function, but got {found!r}.")
        return found  # type: ignore[no-any-return]


@register("parameters")
def parameters(dense: nn.Module, image_shape: ImageShape) -> NetworkCost:
    """Return the cost in parameters that are not zero."""
    return nonzero_parameters


@dataclass(frozen=True)
class WeightedMacs:
    """MACs of the weights that are not zero, on one image.

    Attributes:
        positions: at how many places each layer is computed, by its name.
    """

    positions: Mapping[str, int]

    def __call__(self, pruned: nn.Module, /) -> float:
        """Return the MACs."""
        weights = {name: _multiplied(pruned.get_submodule(name)) for name in self.positions}
        return float(sum(weights[name] * places for name, places in self.positions.items()))


def _multiplied(layer: nn.Module) -> int:
    """Return the weights that are multiplied at each place; a whole shortcut has none."""
    if isinstance(layer, SubsampleShortcut):
        return 0
    weight = layer.get_parameter("weight")
    # A shortcut's zeros say which channel goes where: they are computed with.
    whole = isinstance(layer, SelectingShortcut)
    return weight.numel() if whole else int(weight.count_nonzero())


@register("macs")
def macs(dense: nn.Module, image_shape: ImageShape) -> NetworkCost:
    """Return the cost in multiply-accumulates; a weight that is zero makes none."""
    return WeightedMacs(positions(dense, image_shape))


@dataclass(frozen=True)
class PeakActivations:
    """Greatest number of bytes that feature maps take at once, in plain PyTorch, on one image.

    Attributes:
        image_shape: (C, H, W).
    """

    image_shape: ImageShape

    def __call__(self, pruned: nn.Module, /) -> float:
        """Return the bytes, the image among them."""
        like = next(pruned.parameters())
        image_1CHW = torch.zeros(1, *self.image_shape, device=like.device, dtype=like.dtype)
        modes = {module: module.training for module in pruned.modules()}
        try:
            with torch.no_grad(), _LiveBytes(pruned, image_1CHW) as live:
                pruned.eval()(image_1CHW)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return float(live.peak)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that live, each piece of memory once.

    Attributes:
        peak: the most so far.
    """

    def __init__(self, module: nn.Module, image_1CHW: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        weights = [*module.parameters(), *module.buffers()]
        self._ignored = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self._holders: dict[int, int] = {}
        self._live = self.peak = 0
        self._note(image_1CHW)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {id(leaf) for leaf in tree_leaves(args)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf) not in inputs:  # in place: known already
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        """Count a tensor until it is gone."""
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._ignored:
            return
        if self._holders.setdefault(place, 0) == 0:
            self._live += size
            self.peak = max(self.peak, self._live)
        self._holders[place] += 1
        weakref.finalize(tensor, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if self._holders[place] == 0:
            self._live -= size


@register("peak-activations")
def peak_activations(dense: nn.Module, image_shape: ImageShape) -> NetworkCost:
    """Return the cost in bytes of feature maps that live at once."""
    return PeakActivations(image_shape)


@dataclass
class Milliseconds:
    """Time of one image on one thread, measured: as the compiled executor runs it on this CPU.

    The dense network is timed in turns with the pruned one, and the ratio of the two is believed:
    what slows the machine down slows both. It is CPU time of the thread, so that others that run
    meanwhile do not count; a network that is reported is timed by a wall clock besides.

    Attributes:
        dense: the whole network.
        image_shape: (C, H, W).
        turns: how often each is timed.
        least_ms: a turn repeats a network for about so long.
    """

    dense: nn.Module
    image_shape: ImageShape
    turns: int = 15
    least_ms: float = 0.5
    _whole: tuple[Callable[[], Any], int, float] | None = field(default=None, repr=False)

    def __call__(self, pruned: nn.Module, /) -> float:
        """Return the milliseconds."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if self._whole is None:
                run, calls = self._prepared(self.dense)
                reference = float(np.median([_cpu_ms(run, calls) for _ in range(self.turns)]))
                self._whole = run, calls, reference
            whole, whole_calls, reference = self._whole
            run, calls = self._prepared(pruned)
            ratios = [_cpu_ms(run, calls) / _cpu_ms(whole, whole_calls) for _ in range(self.turns)]
        finally:
            torch.set_num_threads(threads)
        return float(np.median(ratios)) * reference

    def _prepared(self, network: nn.Module) -> tuple[Callable[[], Any], int]:
        """Return what runs a network, and how often a turn repeats it."""
        own = copy.deepcopy(network).cpu().eval()
        deployed = deploy(trace(own, self.image_shape, groups=1))
        image_1CHW = torch.rand(1, *self.image_shape, generator=torch.Generator().manual_seed(0))

        def run() -> Any:
            return deployed.dense(image_1CHW)

        for _ in range(3):
            run()
        return run, max(1, math.ceil(self.least_ms / max(_cpu_ms(run, 3), 1e-3)))

    def __getstate__(self) -> dict[str, Any]:
        """Return all but what is deployed, which belongs to its process."""
        return self.__dict__ | {"_whole": None}


def _cpu_ms(run: Callable[[], Any], calls: int) -> float:
    """Return how long a call takes this thread, in milliseconds."""
    start = time.thread_time_ns()
    for _ in range(calls):
        run()
    return (time.thread_time_ns() - start) / calls / 1e6


@register("milliseconds")
def milliseconds(dense: nn.Module, image_shape: ImageShape) -> NetworkCost:
    """Return the cost in milliseconds per image on this CPU, measured."""
    return Milliseconds(copy.deepcopy(dense).cpu().eval(), image_shape)
