"""One pass of a batch in a mode that somebody else has chosen.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
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
        sites: decisions of a pass.
        full: the plan of a pass at full width.
        device: where it runs.
        image_shape: (C, H, W).
        runs_subsets: whether there are compiled calls for subsets of channels.
    """

    def __init__(
        self, network: PrunableNetwork, *, dtype: torch.dtype, channels_last: bool, fused: bool
    ) -> None:
        self.sites = len(network.sites)
        self.full: Plan = network.uniform(network.groups)
        self.device = next(network.parameters()).device
        self.image_shape = network.image_shape
        self._network, self._dtype = network, dtype
        self._double = dtype == torch.float64
        bounds = [site.bounds for site in network.sites]
        with torch.inference_mode():
            lowered = lower(network, fused=fused)
            # Calls are chosen on the first input: those for one image are others than for many.
            self._alone, self._many = (
                StagePrograms(lowered, bounds, dtype=dtype, fused=fused) for _ in range(2)
            )
            able = fused and channels_last and runs_ragged(lowered, dtype)
            channels = network.image_shape[0]
            self._planes = not channels_last or (fused and reads_planes(lowered, dtype, channels))
            self.ragged = Ragged(self._many, dtype) if able else None
            self._carried = carried_subsets(network)
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
        return SubsetProgram(self._network, policy, self._many, self._carried, self._dtype)

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
        """Return ``logits_BK`` of images that share a plan."""
        return self._pass(images_BCHW, plan)[0]

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
        if mode == "ragged" and self.ragged is not None:
            return self.ragged.run(images_BCHW, decide)
        ways = {"dense": run_dense, "prefix": run_prefix, "image": run_alone}
        return ways[mode](self.programs(decide.size), images_BCHW, decide, self.sites)

    def _pass(self, images_BCHW: Tensor, plan: Plan) -> tuple[Tensor, int]:
        """Return ``logits_BK`` of images that share a plan, and the MACs of each."""
        return run_uniform(self.programs(images_BCHW.shape[0]), images_BCHW, plan)
