"""How many images of a batch run together: as many as is fastest, by measurement.

Feature maps of a whole batch may leave the caches. So a batch is run in parts, unless a compiled
call takes it apart itself.

Dimensions: B images.
"""

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batching.plans import PlanDecider
from runtime_pruning.executor.engine import BatchMode, Engine
from runtime_pruning.executor.plan_macs import PlanMacs
from runtime_pruning.executor.plan_sampling import plans_near
from runtime_pruning.timing.turns import fastest_part


class BatchParts:
    """The sizes of parts, measured when they are first asked for.

    Args:
        engine: runs them.
        macs: of its plans.
        groups: largest count of a plan.
        fixed: images of a batch that run together; None: to be measured.

    Raises:
        ConfigError: a part below one image.
    """

    def __init__(self, engine: Engine, macs: PlanMacs, groups: int, fixed: int | None) -> None:
        if fixed is not None and fixed < 1:
            raise ConfigError(f"`part >= 1` must hold, but got {fixed}.")
        self._engine, self._macs, self._groups, self._fixed = engine, macs, groups, fixed
        self._sizes: dict[tuple[int, int, bool], int] = {}
        self._whole = {True: False, False: False}  # whether a compiled call takes batches apart

    def size(self, batch: int, *, ragged: bool = False) -> int:
        """Return how many images of a batch run together.

        Args:
            batch: images.
            ragged: each at widths of its own; else alike.
        """
        if self._fixed is not None:
            return min(self._fixed, batch)
        if batch == 1 or self._whole[ragged] or self._engine.device.type != "cpu":
            return batch
        key = (batch, torch.get_num_threads(), ragged)
        if key not in self._sizes:
            self._sizes[key] = self._measured(batch, ragged=ragged)
        return self._sizes[key]

    def size_in(self, mode: BatchMode, batch: int) -> int:
        """Return how many images of a batch run together in a mode."""
        if batch == 1 or mode == "image":
            return 1
        return self.size(batch, ragged=mode == "ragged")

    @torch.inference_mode()
    def _measured(self, batch: int, *, ragged: bool) -> int:
        """Return how many images of a batch are best run together; see `size`."""
        engine = self._engine
        images_BCHW = engine.enter(torch.rand(batch, *engine.image_shape))
        given = PlanDecider(self._plans(batch, ragged=ragged), self._groups)
        mode: BatchMode = "ragged" if ragged else "prefix"

        def run(size: int) -> None:
            engine.planned(images_BCHW[:size], given.part(0, size, engine.sites), mode)

        run(2)
        self._whole[ragged] = engine.splits_batch(ragged=ragged)
        return batch if self._whole[ragged] else fastest_part(run, batch)

    def _plans(self, batch: int, *, ragged: bool) -> Tensor:
        """Return the plans that parts are timed at."""
        if not ragged:
            return torch.tensor([self._engine.full] * batch)
        drawn = plans_near(
            self._macs.fraction,
            sites=self._engine.sites,
            groups=self._groups,
            fraction=0.5,
            batch=batch,
            generator=torch.Generator().manual_seed(0),
        )
        return torch.tensor(drawn)
