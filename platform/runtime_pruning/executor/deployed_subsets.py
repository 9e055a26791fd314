"""Subsets of channels, deployed: which ways there are to run them here.

* ``subset``: each image's kept rows are gathered and only they are computed (the C++ library).
* ``gathered``: the same by plain PyTorch, for networks of which the library knows an operation not.
* ``masked``: everything is computed and absent channels are set to zero: executed MACs are dense.

Dimensions: B images, C channels, H W pixels.
"""

import copy
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batching.subsets import SubsetProgram
from runtime_pruning.executor.engine import Engine
from runtime_pruning.network import Mode, PrunableNetwork
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import SubsetExecution, SubsetRun

SubsetMode: TypeAlias = Literal["subset", "gathered", "masked"]
_PLAIN: dict[str, Mode] = {"gathered": "sliced", "masked": "masked"}


class DeployedSubsets:
    """Runs policies of salient channels.

    Args:
        network: in evaluation mode; it must not change any more.
        engine: of the network.
        dtype: of weights and features.
    """

    def __init__(self, network: PrunableNetwork, engine: Engine, dtype: torch.dtype) -> None:
        self._network, self._engine, self._dtype = network, engine, dtype
        self._programs: WeakKeyDictionary[SubsetPolicy, SubsetProgram] = WeakKeyDictionary()
        self._plain: PrunableNetwork | None = None

    @property
    def modes(self) -> tuple[SubsetMode, ...]:
        """The ways that there are here, the first where none was measured."""
        if self._engine.runs_subsets:
            return ("subset", "gathered", "masked")
        return ("gathered", "masked")

    def execute(self, images_BCHW: Tensor, policy: SubsetPolicy, mode: str) -> SubsetExecution:
        """Run what a policy keeps.

        Raises:
            ConfigError: images of another shape, a policy of another network, or a mode that there
                is not.
        """
        chosen = self.modes[0] if mode == "auto" else mode
        if chosen not in self.modes:
            raise ConfigError(
                f"Subsets of channels run in one of the modes {('auto', *self.modes)} here, "
                f"but got {mode!r}."
            )
        entered_BCHW = self._engine.enter(images_BCHW)
        if chosen == "subset":
            return self._program(policy).run(entered_BCHW)
        network = self._in_type()
        run = SubsetRun(network, entered_BCHW.to(self._dtype), policy, _PLAIN[chosen])
        execution = run.finish().result()
        execution.logits_BK, execution.mode = execution.logits_BK.float(), chosen
        return execution

    def _program(self, policy: SubsetPolicy) -> SubsetProgram:
        """Return the program of a policy; threads that come here at once take the last."""
        found = self._programs.get(policy)
        if found is None:
            found = self._programs[policy] = self._engine.subset_program(policy)
        return found

    def _in_type(self) -> PrunableNetwork:
        """Return the network with numbers of the deployed type."""
        if self._plain is None:
            same = next(self._network.parameters()).dtype == self._dtype
            self._plain = self._network if same else copy.deepcopy(self._network).to(self._dtype)
        return self._plain
