"""A deployed network taken apart into its stages, each with all its fused calls.

A stage is what runs between two decisions. Its time depends on its own site's width and on the
widths that it reads; where several earlier sites decide those, the largest of them counts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime_pruning.cost.timed_units import Plan, TimedUnit
from runtime_pruning.executor.agreement import check_modes
from runtime_pruning.executor.deployed import DeployedNetwork, deploy
from runtime_pruning.executor.native import build, library
from runtime_pruning.executor.program.stage_programs import StagePrograms
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.graph import Width
from runtime_pruning.timing.device import Device, this_device


class TimedDeployedNetwork:
    """The fused execution of a network, stage by stage.

    Args:
        deployed: the network as it runs at inference.
    """

    def __init__(self, deployed: DeployedNetwork) -> None:
        self.network: PrunableNetwork = deployed.network
        self._deployed = deployed

    @property
    def device(self) -> Device:
        """What the network runs on, in which precision, by which calls."""
        where = next(self.network.parameters()).device
        calls = "fused" if self._deployed.fused else "unfused"
        if self._deployed.fused and library.functions(self._deployed.dtype) is not None:
            calls = f"fused {library.description()} {build.version()}"
        return this_device(self._deployed.dtype, where, calls=calls)

    def steps(self, images_BCHW: Tensor, plan: Plan) -> Sequence[TimedUnit]:
        """Return the stages in order; all images run the plan."""
        programs = self._deployed.engine.programs(images_BCHW.shape[0])
        state = programs.new_state(self._deployed.engine.enter(images_BCHW))
        found = []
        for stage in range(len(plan) + 1):
            key = programs.key(stage, plan)
            run = partial(_again, programs, stage, key, list(state))
            found.append(TimedUnit(f"stage{stage}", "stage", stage, *self._axes(stage), run))
            programs.run(stage, key, state)
        return found

    def run(self, images_BCHW: Tensor, plan: Plan) -> Any:
        """Execute the whole network; all images run the plan."""
        return self.whole(plan)(images_BCHW)

    def whole(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        """Return the network at one plan, launched call by call as its stages are."""
        return self._deployed.static(plan)

    def _axes(self, stage: int) -> tuple[Width, Width]:
        """Return the widths that a stage reads, and that its own site writes."""
        own = frozenset({stage - 1})
        earlier = frozenset(self._deployed.engine.programs(1).relevant[stage]) - own
        return self._width(earlier), self._width(own if stage else frozenset())

    def _width(self, sites: frozenset[int]) -> Width:
        """Return the largest of the sites' widths."""
        channels = [self.network.sites[site].channels for site in sites]
        return Width(max(channels, default=0), sites)


def _again(programs: StagePrograms, stage: int, key: Plan, before: list[Any]) -> None:
    """Run a stage on what stood before it."""
    programs.run(stage, key, list(before))


def timed_deployed(
    network: PrunableNetwork,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    images: int = 4,
    seed: int = 0,
) -> TimedDeployedNetwork:
    """Return a network as it is deployed, after it has answered as plain PyTorch does.

    Args:
        network: in evaluation mode; its weights are copied.
        dtype: of weights and features.
        device: where it runs.
        images: of noise, on which answers are compared, each on a random plan of its own.
        seed: of images and plans.

    Raises:
        ContractError: a mode answers otherwise: its times would be worth nothing.
    """
    deployed = deploy(network, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.rand(images, *network.image_shape, generator=generator)
    plans_BL = torch.randint(
        1, network.groups + 1, (images, len(network.sites)), generator=generator
    )
    like = next(network.parameters())
    check_modes(deployed, network, images_BCHW.to(like.device, like.dtype), plans_BL)
    return TimedDeployedNetwork(deployed)
