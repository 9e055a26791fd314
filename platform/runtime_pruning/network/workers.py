"""Data-parallel training: each worker learns from its share of a batch, all take the same step.

Workers draw the same random numbers, so that the order of images, the plans of a step and the
learning rate are theirs in common; what differs is which images of a batch each has. Gradients are
averaged before the step, and running statistics of batch norm with them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.batch_norm import NORMS


class Workers(NamedTuple):
    """The processes that train one network together, as one of them sees it.

    Attributes:
        rank: which of them this is, from 0; the first writes checkpoints.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of_process_group(cls) -> "Workers":
        """Return the workers of torch's default process group; one alone where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def check(self, batch: int) -> None:
        """Raise unless a batch can be dealt to all in equal shares of two images or more.

        Raises:
            ConfigError: it cannot.
        """
        if batch % self.size or batch // self.size < 2:
            raise ConfigError(
                f"`batch_size` must be a multiple of the number of workers, with at least 2 images "
                f"for each, but got {batch} for {self.size} workers."
            )

    def wait(self) -> None:
        """Return when all workers have come here."""
        if self.size > 1:
            distributed.barrier()

    def share(self, rows_B: Tensor) -> Tensor:
        """Return this worker's rows of a batch."""
        return rows_B[self.rank :: self.size]

    @torch.no_grad()
    def average(self, network: nn.Module, numbers: Sequence[float]) -> list[float]:
        """Replace gradients and running statistics by their means over the workers.

        All that workers differ in is averaged in one reduction after each step, so that they hold
        the same network at any time, bit for bit.

        Args:
            network: parameters without a gradient are passed over; they are the same everywhere.
            numbers: that are averaged with them.

        Returns:
            The means of these numbers.
        """
        if self.size == 1:
            return list(numbers)
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norms = [module for module in network.modules() if isinstance(module, NORMS)]
        statistics = [b for norm in norms for b in norm.buffers() if b.is_floating_point()]
        told = gradients[0].new_tensor(list(numbers), dtype=torch.float32)
        own = [*gradients, *statistics, told]
        flat = torch.cat([tensor.flatten().float() for tensor in own])
        distributed.all_reduce(flat)
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in own])
        for tensor, part in zip(own, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        found: list[float] = told.tolist()
        return found
