"""A backbone made prunable: the ways to run it.

Dimensions: B images, C channels, H W pixels, L sites.
"""

from dataclasses import replace

from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.execution import Execution
from runtime_pruning.network.policies import PlannedChooser, Policy
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.staged_run import Mode, StagedRun
from runtime_pruning.network.subset_run import SubsetRun
from runtime_pruning.network.traced import TracedNetwork


class PrunableNetwork(TracedNetwork):
    """A backbone whose sites run, image by image, with as many channel groups as a plan says.

    With g groups a site computes only its first ``bounds[g]`` channels; absent channels count as
    zeros wherever they are read. Built by `runtime_pruning.network.trace`.
    """

    def start(self, images_BCHW: Tensor, *, mode: Mode = "sliced") -> StagedRun:
        """Return a run that stands before the first decision.

        Args:
            images_BCHW: float, in [0, 1].
            mode: ``"sliced"`` computes what the plan says; ``"masked"`` computes everything and
                multiplies by zeros.
        """
        return StagedRun(self, images_BCHW, mode)

    def run(self, images_BCHW: Tensor, groups_BL: Tensor, *, mode: Mode = "sliced") -> Execution:
        """Run a plan that is known beforehand."""
        if groups_BL.shape != (images_BCHW.shape[0], len(self.sites)):
            raise ConfigError(
                f"A plan of shape {(images_BCHW.shape[0], len(self.sites))} is needed, "
                f"but got {tuple(groups_BL.shape)}."
            )
        run = self.start(images_BCHW, mode=mode)
        run.complete(PlannedChooser(groups_BL))
        return run.result()

    def execute(self, images_BCHW: Tensor, policy: Policy, *, mode: Mode = "sliced") -> Execution:
        """Run what a policy chooses, site by site; its own MACs are counted with it."""
        if isinstance(policy, SubsetPolicy):
            return SubsetRun(self, images_BCHW, policy, mode).finish().result()
        run = self.start(images_BCHW, mode=mode)
        run.complete(policy.start(len(images_BCHW)))
        return replace(run.result(), policy_macs=policy.macs_per_image)

    def plan(self, images_BCHW: Tensor, policy: Policy) -> Tensor:
        """Return ``groups_BL``, what a policy chooses; nothing is run where it need not look."""
        chooser = policy.start(len(images_BCHW))
        if isinstance(chooser, PlannedChooser):
            return chooser.groups_BL
        run = self.start(images_BCHW)
        run.complete(chooser)
        return run.groups_BL
