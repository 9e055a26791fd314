"""One pass of a batch in a mode that somebody else has chosen.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batching.gathering import gathered
from runtime_pruning.executor.batching.masked import run_dense
from runtime_pruning.executor.batching.plans import Outcome, Plan, PlanDecider, PolicyDecider
from runtime_pruning.executor.batching.prefix import run_planned_prefix, run_prefix
from runtime_pruning.executor.batching.ragged import Ragged, runs_ragged
from runtime_pruning.executor.batching.subsets import SubsetProgram, runs_subsets
from runtime_pruning.executor.batching.uniform import run_alone, run_uniform
from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.executor.program.binder import reads_planes
from runtime_pruning.executor.program.stage_programs import StagePrograms
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.staged_run import certainty
from runtime_pruning.network.subset_run import carried_subsets

BatchMode: TypeAlias = Literal["image", "prefix", "ragged", "dense"]


class Engine:
    """Runs batches through the operations of a network.

    Args:
        network: in evaluation mode; it must not change any more.
        dtype: of weights and features.
        channels_last: memory layout of feature maps.
        fused: whether to use fused calls.

    Attributes:
        sites: decisions of a pass; a second look comes after it.
        full: the plan of a pass at full width.
        device: where it runs.
        image_shape: (C, H, W).
        runs_subsets: whether there are compiled calls for subsets of channels.
    """

    def __init__(
        self, network: PrunableNetwork, *, dtype: torch.dtype, channels_last: bool, fused: bool
    ) -> None:
        plain = network.plain
        self.sites = len(plain.sites)
        self.full: Plan = plain.uniform(network.groups)
        self.device = next(network.parameters()).device
        self.image_shape = network.image_shape
        self._plain, self._dtype = plain, dtype
        self._double = dtype == torch.float64
        self._looks_twice = network.second_look
        bounds = [site.bounds for site in plain.sites]
        with torch.inference_mode():
            lowered = lower(plain, fused=fused)
            # Calls are chosen on the first input: those for one image are others than for many.
            self._alone, self._many = (
                StagePrograms(lowered, bounds, dtype=dtype, fused=fused) for _ in range(2)
            )
            able = fused and channels_last and runs_ragged(lowered, dtype)
            channels = network.image_shape[0]
            self._planes = not channels_last or (fused and reads_planes(lowered, dtype, channels))
            self.ragged = Ragged(self._many, dtype) if able else None
            self._carried = carried_subsets(plain)
            self.runs_subsets = (
                fused and channels_last and runs_subsets(lowered, self._carried, dtype)
            )

    @property
    def modes(self) -> tuple[BatchMode, ...]:
        """The modes that a batch can run in here."""
        every: tuple[BatchMode, ...] = get_args(BatchMode)
        return tuple(mode for mode in every if mode != "ragged" or self.ragged is not None)

    def programs(self, batch: int) -> StagePrograms:
        """Return the stages of the network, bound for batches of this size."""
        return self._alone if batch == 1 else self._many

    def subset_program(self, policy: SubsetPolicy) -> SubsetProgram:
        """Return what runs a policy of salient channels, where there are compiled calls for it."""
        return SubsetProgram(self._plain, policy, self._many, self._carried, self._dtype)

    def splits_batch(self, *, ragged: bool) -> bool:
        """Whether a batch is taken apart inside a compiled call; known after the first run.

        Args:
            ragged: each image at widths of its own; else alike.
        """
        if ragged and self.ragged is not None:
            return self.ragged.splits_batch
        return self._many.splits_batch(self.full)

    def enter(self, images_BCHW: Tensor) -> Tensor:
        """Return images on the device, in the type and layout that the calls were bound to.

        Raises:
            ConfigError: images of another shape.
        """
        if images_BCHW.ndim != 4 or tuple(images_BCHW.shape[1:]) != self.image_shape:
            raise ConfigError(
                f"Images of shape (B, {', '.join(map(str, self.image_shape))}) are "
                f"needed, but got {tuple(images_BCHW.shape)}."
            )
        layout = torch.contiguous_format if self._planes else torch.channels_last
        dtype = torch.float64 if self._double else torch.float32
        return images_BCHW.to(self.device, dtype).contiguous(memory_format=layout)

    # What follows takes images that have entered.

    def uniform(self, images_BCHW: Tensor, plan: Plan) -> Tensor:
        """Return ``logits_BK`` of images that share a plan, its second look included."""
        again = plan[self.sites :]
        logits_BK = self._pass(images_BCHW, plan[: self.sites])[0]
        looks = again and again[0] > 1
        return self._pass(images_BCHW, again * self.sites)[0] if looks else logits_BK

    def planned(self, images_BCHW: Tensor, plans: PlanDecider, mode: BatchMode) -> Outcome:
        """Run images together, a pass whose plans are known."""
        if mode == "dense" and not (plans.alike and plans.first == self.full):
            return run_dense(self.programs(plans.size), images_BCHW, plans, self.sites)
        if plans.alike:
            logits_BK, macs = self._pass(images_BCHW, plans.first)
            return Outcome.alike(logits_BK, plans.first, macs)
        if mode == "ragged" and self.ragged is not None:
            return self.ragged.run(images_BCHW, plans)
        return run_planned_prefix(self.programs(plans.size), images_BCHW, plans.rows)

    def decided(self, images_BCHW: Tensor, decide: PolicyDecider, mode: BatchMode) -> Outcome:
        """Run what a policy says, the whole batch going from site to site."""
        once = self._decided_once(images_BCHW, decide, mode)
        if not self._looks_twice:
            return once
        counts = decide(self.sites, lambda: certainty(once.logits_BK))
        return self.again(once, images_BCHW, counts)

    def fixed(self, decide: PolicyDecider) -> bool:
        """Whether all decisions of the first pass are known before it."""
        return decide.fixed_sites >= self.sites

    def _decided_once(self, images_BCHW: Tensor, decide: PolicyDecider, mode: BatchMode) -> Outcome:
        """Run what a policy says, one pass."""
        if self.fixed(decide):
            plan = (1,) * self.sites
            logits_BK, macs = self._pass(images_BCHW, plan)
            return Outcome.alike(logits_BK, plan, macs)
        if mode == "ragged" and self.ragged is not None:
            return self.ragged.run(images_BCHW, decide)
        ways = {"dense": run_dense, "prefix": run_prefix, "image": run_alone}
        return ways[mode](self.programs(decide.size), images_BCHW, decide, self.sites)

    def again(self, outcome: Outcome, images_BCHW: Tensor, counts: Sequence[int]) -> Outcome:
        """Return what comes of images that look again where their count is above one."""
        logits_BK, macs_B = outcome.logits_BK, np.array(outcome.macs)
        for groups in sorted({*counts} - {1}):
            rows = [row for row, count in enumerate(counts) if count == groups]
            rows_N = torch.tensor(rows, device=images_BCHW.device)
            alone = len(rows) == len(counts)
            own_NCHW = images_BCHW if alone else gathered(images_BCHW, rows_N)
            wide_NK, spent = self._pass(own_NCHW, (groups,) * self.sites)
            logits_BK = wide_NK if alone else logits_BK.index_copy(0, rows_N, wide_NK)
            macs_B[rows] += spent
        groups_BL = np.concatenate([np.asarray(outcome.plans), np.array(counts)[:, None]], 1)
        return Outcome(logits_BK, groups_BL, macs_B)

    def _pass(self, images_BCHW: Tensor, plan: Plan) -> tuple[Tensor, int]:
        """Return ``logits_BK`` of images that share a plan, and the MACs of each."""
        return run_uniform(self.programs(images_BCHW.shape[0]), images_BCHW, plan)
