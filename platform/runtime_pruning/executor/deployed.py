"""A prunable network made fast for inference: fused, packed, and run in the mode that pays.

A batch is run in parts of as many images as is fastest when dense; so is the dense baseline. Every
mode means what `PrunableNetwork` means; they differ in how a part with unlike plans is cut:

* ``image``: one image at a time; nothing is gathered.
* ``prefix``: the batch is split where plans part, and never joined again until the logits.
* ``ragged``: layer by layer, one call in which each image has widths of its own (the C++ library).
* ``dense``: everything is computed and absent channels are set to zero: executed MACs are dense.
* ``auto``: the fastest of these for the batch and the MACs that are expected, by measurement.
* ``full``, of policies alone: nobody is asked, all images run at full width. ``auto`` does so where
  a policy was measured and no mode is faster than dense: what deciding takes cannot be left out.

`docs/executor.md` follows a batch from here to its logits.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batch_parts import BatchParts
from runtime_pruning.executor.batching.plans import (
    Outcome,
    Plan,
    PlanDecider,
    PolicyDecider,
    joined,
)
from runtime_pruning.executor.deployed_subsets import DeployedSubsets, SubsetMode
from runtime_pruning.executor.engine import BatchMode, Engine
from runtime_pruning.executor.kernels.onednn import fused_calls_exist
from runtime_pruning.executor.mode_table import ModeTable
from runtime_pruning.executor.native import memory
from runtime_pruning.executor.plan_macs import PlanMacs
from runtime_pruning.network import Execution, PrunableNetwork
from runtime_pruning.network.execution import IntArrayLike
from runtime_pruning.network.policies import Deployable, PlannedChooser, Policy
from runtime_pruning.network.saliency import SubsetPolicy

DeployedMode: TypeAlias = Literal["auto", "image", "prefix", "ragged", "dense"]
DEPLOYED_MODES: tuple[DeployedMode, ...] = get_args(DeployedMode)
PolicyMode: TypeAlias = DeployedMode | Literal["full"] | SubsetMode
SAMPLED = 16  # plans of a batch that are looked at to choose its mode


def deploy(
    network: PrunableNetwork,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    fused: bool | None = None,
    part: int | None = None,
) -> "DeployedNetwork":
    """Return a copy of the network for inference only.

    On a CPU, glibc is told to keep freed memory; see `memory.keep_memory`.

    Args:
        network: its weights are copied, batch norm is folded into them.
        dtype: of weights and features; logits and pooled features are float32.
        device: where it runs.
        channels_last: memory layout of feature maps.
        fused: use oneDNN's fused calls, and our own; None: where they exist.
        part: images of a batch that run together; None: as many as is fastest, by measurement.

    Raises:
        ConfigError: fused calls are asked for where there are none, or a part below one image.
    """
    on_cpu = torch.device(device).type == "cpu"
    possible = on_cpu and fused_calls_exist()
    if fused and not possible:
        raise ConfigError(f"`fused=True` needs a CPU and PyTorch with oneDNN, but got {device!r}.")
    if on_cpu:
        memory.keep_memory()
    own = copy.deepcopy(network).eval().to(device)
    use = possible if fused is None else fused
    return DeployedNetwork(own, dtype=dtype, channels_last=channels_last, fused=use, part=part)


class DeployedNetwork:
    """Runs plans and policies at inference; built by `deploy`.

    Threads may run one at the same time, also the first time: what a batch needs belongs to its
    call. Programs are then compiled by each thread that finds none, and the last ones are kept. A
    policy must be as free of state; `start` gives each batch its own.

    Args:
        network: in evaluation mode; it must not change any more.
        dtype: of weights and features.
        channels_last: memory layout of feature maps.
        fused: whether to use fused calls.
        part: images of a batch that run together; None: to be measured.

    Attributes:
        network: see above.
        engine: runs passes of a batch.
        parts: how many images of a batch run together.
        macs: of plans, by formula.
        mode_table: which mode pays, if it was measured (`autotuning.measure_modes`).
        subsets: runs policies of salient channels.
        policy_tables: likewise, of policies (`autotuning.measure_policy`).
    """

    def __init__(
        self,
        network: PrunableNetwork,
        *,
        dtype: torch.dtype,
        channels_last: bool,
        fused: bool,
        part: int | None,
    ) -> None:
        self.network = network
        self.dtype = dtype
        self.fused = fused
        self.macs = PlanMacs(network)
        self.engine = Engine(network, dtype=dtype, channels_last=channels_last, fused=fused)
        self.parts = BatchParts(self.engine, self.macs, network.groups, part)
        self.subsets = DeployedSubsets(network, self.engine, dtype)
        self.mode_table: ModeTable | None = None
        self.policy_tables: WeakKeyDictionary[Policy, ModeTable] = WeakKeyDictionary()
        self._full = network.uniform(network.groups)
        self._spent: dict[str, IntArrayLike] = {}  # MACs of a policy's last batch, by image
        self._policies: WeakKeyDictionary[Policy, Policy] = WeakKeyDictionary()

    @property
    def modes(self) -> tuple[BatchMode, ...]:
        """The modes that a batch can run in here."""
        return self.engine.modes

    @property
    def dense_macs(self) -> int:
        """MACs of one pass of the backbone at full width, per image."""
        return self.macs.dense

    @torch.inference_mode()
    def dense(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK``, float32, of the backbone at full width: the baseline."""
        return self._uniform(images_BCHW, self._full)

    def static(self, groups_L: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Return a network pruned to one plan for good: the limit of what slicing can gain."""
        plan = self._read(torch.tensor([list(groups_L)]), 1).first
        return torch.inference_mode()(lambda images_BCHW: self._uniform(images_BCHW, plan))

    @torch.inference_mode()
    def run(
        self, images_BCHW: Tensor, groups_BL: Tensor, *, mode: DeployedMode = "auto"
    ) -> Execution:
        """Run a plan that is known beforehand.

        Raises:
            ConfigError: shapes that do not fit, group counts out of range, or an unknown mode.
        """
        return self._planned(images_BCHW, groups_BL, mode, 0)

    @torch.inference_mode()
    def execute(
        self,
        images_BCHW: Tensor,
        policy: Policy,
        *,
        mode: PolicyMode = "auto",
        expected_fraction: float | None = None,
    ) -> Execution:
        """Run what a policy chooses, site by site; its own MACs are counted with it.

        Args:
            images_BCHW: float, in [0, 1].
            policy: what chooses; it must not change after its first run here.
            mode: how the batch is cut; see the module, and `deployed_subsets` of salient channels.
            expected_fraction: of the dense MACs, for the choice of a mode where the policy was not
                measured; None: as its last batches had.

        Raises:
            ConfigError: images of another shape, counts out of range, or an unknown mode.
        """
        size = images_BCHW.shape[0]
        table = self.policy_tables.get(policy) if mode == "auto" else None
        if table is not None and table.threads == torch.get_num_threads():
            mode = cast(PolicyMode, table.choose(size, 1.0, steady="full"))
        if isinstance(policy, SubsetPolicy):
            return self.subsets.execute(images_BCHW, policy, mode)
        if mode == "full":
            logits_BK = self._uniform(images_BCHW, self._full)
            return self._execution(Outcome.alike(logits_BK, self._full, self.macs.dense), mode, 0)
        mode = cast(DeployedMode, mode)  # others are refused below
        policy = self._fast(policy)
        chooser = policy.start(size)
        if isinstance(chooser, PlannedChooser):
            return self._planned(images_BCHW, chooser.groups_BL, mode, policy.macs_per_image)
        groups, ragged = self.network.groups, self.engine.ragged is not None
        decide = PolicyDecider(chooser, size, groups)
        if (size, mode) == (1, "auto") and ragged and decide.compiled is not None:
            mode = "ragged"  # a compiled call or a few, where `image` has one for each stage
        chosen = self._mode(mode, size, partial(self._expected_of, policy, expected_fraction))
        images_BCHW = self.engine.enter(images_BCHW)
        part = self.parts.size_in(chosen, size)
        deciders = [decide]
        if part < size:
            counts = [min(part, size - first) for first in range(0, size, part)]
            deciders = [PolicyDecider(policy.start(count), count, groups) for count in counts]
        outcome = joined(
            self.engine.decided(own_BCHW, own, chosen)
            for own_BCHW, own in zip(torch.split(images_BCHW, part), deciders, strict=True)
        )
        self._spent[policy.name] = outcome.macs
        return self._execution(outcome, chosen, policy.macs_per_image)

    # Inside

    def _expected_of(self, policy: Policy, given: float | None) -> float:
        """Return what is given, or the share of the dense MACs that a policy's last batch had."""
        spent = self._spent.get(policy.name)
        if given is not None or spent is None:
            return 0.5 if given is None else given
        return float(np.asarray(spent).mean()) / self.macs.dense

    def _fast(self, policy: Policy) -> Policy:
        """Return the form of a policy that is made for deployed networks, if it has one."""
        if not hasattr(policy, "deploy"):
            return policy
        found = self._policies.get(policy)
        if found is None:
            assert isinstance(policy, Deployable)  # slow: it looks at every member
            found = self._policies[policy] = policy.deploy()
        return found

    def _uniform(self, images_BCHW: Tensor, plan: Plan) -> Tensor:
        """Return ``logits_BK``, float32, of images that share a plan."""
        images_BCHW = self.engine.enter(images_BCHW)
        size = images_BCHW.shape[0]
        part = self.parts.size(size)
        if part >= size:
            return self.engine.uniform(images_BCHW, plan).float()
        parts = [self.engine.uniform(own_BCHW, plan) for own_BCHW in torch.split(images_BCHW, part)]
        return torch.cat(parts).float()

    def _read(self, groups_BL: Tensor, size: int) -> PlanDecider:
        """Return plans of so many images.

        Raises:
            ConfigError: another shape, or a count out of range.
        """
        if not groups_BL.is_cpu or groups_BL.dtype != torch.int64:
            groups_BL = groups_BL.to("cpu", torch.int64)
        if groups_BL.shape != (size, len(self._full)):
            raise ConfigError(
                f"A plan of shape {(size, len(self._full))} is needed, "
                f"but got {tuple(groups_BL.shape)}."
            )
        return PlanDecider(groups_BL, self.network.groups)

    def _mode(self, mode: DeployedMode, size: int, fraction: Callable[[], float]) -> BatchMode:
        """Return the mode to run in.

        Args:
            mode: that was asked for.
            size: images of the batch.
            fraction: returns the share of the dense MACs that is expected.
        """
        if mode not in DEPLOYED_MODES:
            raise ConfigError(f"`mode` must be one of {DEPLOYED_MODES}, but got {mode!r}.")
        if mode == "ragged" and self.engine.ragged is None:
            raise ConfigError(f"`mode={mode!r}` cannot run this network here; see `modes`.")
        if mode != "auto":
            return mode
        if size == 1:
            return "image"
        known = self.mode_table
        if known is None or known.threads != torch.get_num_threads():
            return "prefix" if self.engine.ragged is None else "ragged"
        steady = "ragged"  # it takes as long whatever plans meet in a batch
        found: Any = known.always(size, steady) or known.choose(size, fraction(), steady)
        fastest: BatchMode = found
        return fastest

    def _planned(
        self, images_BCHW: Tensor, groups_BL: Tensor, mode: DeployedMode, policy_macs: int
    ) -> Execution:
        """Run plans that are known."""
        images_BCHW = self.engine.enter(images_BCHW)
        size = images_BCHW.shape[0]
        plans = self._read(groups_BL, size)
        chosen: BatchMode = "prefix"
        if mode != "auto" or not plans.alike:
            chosen = self._mode(mode, size, partial(self._fraction_of, plans))
        part = self.parts.size_in(chosen, size)
        if part >= size:
            outcome = self.engine.planned(images_BCHW, plans, chosen)
        else:
            outcome = joined(
                self._planned_part(images_BCHW, plans, first, min(first + part, size), chosen)
                for first in range(0, size, part)
            )
        return self._execution(outcome, chosen, policy_macs)

    def _fraction_of(self, plans: PlanDecider) -> float:
        """Return the mean share of the dense MACs of plans, or of some where they are many."""
        some = plans.rows[:: max(1, plans.size // SAMPLED)]
        return sum(map(self.macs.fraction, some)) / len(some)

    def _planned_part(
        self, images_BCHW: Tensor, plans: PlanDecider, first: int, last: int, mode: BatchMode
    ) -> Outcome:
        """Run images ``[first, last)`` together."""
        images_BCHW = images_BCHW[first:last]
        own = plans.part(first, last, self.engine.sites)
        return self.engine.planned(images_BCHW, own, mode)

    def _execution(self, outcome: Outcome, mode: str, policy_macs: int) -> Execution:
        return Execution(
            logits_BK=outcome.logits_BK.float(),
            plans=outcome.plans,
            macs=outcome.macs,
            policy_macs=policy_macs,
            bounds_LG=self.network.bounds_LG,
            mode=mode,
        )
