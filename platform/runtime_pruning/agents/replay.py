"""Whole episodes as arrays: what env runners send, and the ring that keeps them.

An episode's facts are kept, not its rewards: what each decision cost and what the classification
lost. So an episode can be learned from under any penalty, whichever it ran under: decisions, costs
and losses stay true, and Q-learning asks for no more.

Dimensions: E episodes, L sites, F features. All episodes have L steps; the terminal observation is
no column, since it is the same for all: site L, features zero.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning_envs import PenaltyRange


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """E whole episodes of L steps that ran in lockstep.

    Attributes:
        features_ELF: features before each site, float32, zero-padded.
        actions_EL: int64 in [0, groups).
        cost_EL: of each decision, float32, not yet weighted by the penalty.
        loss_E: of the answer, times the reward's alpha, float32.
        penalty_E: float32; what the agent was told when it decided.
        backbone_version: of the network that the episodes ran on.
    """

    features_ELF: NDArray[np.float32]
    actions_EL: NDArray[np.int64]
    cost_EL: NDArray[np.float32]
    loss_E: NDArray[np.float32]
    penalty_E: NDArray[np.float32]
    backbone_version: int = 0

    def __len__(self) -> int:
        """Return the number of steps, as RLlib counts what a sample holds."""
        return int(self.actions_EL.size)

    def env_steps(self) -> int:
        """Return the number of steps."""
        return len(self)

    def agent_steps(self) -> int:
        """Return the number of steps."""
        return len(self)

    @property
    def rewards_EL(self) -> NDArray[np.float32]:
        """The environment's rewards under the episodes' penalties, float32."""
        rewards_EL = -self.penalty_E[:, None] * self.cost_EL
        rewards_EL[:, -1] -= self.loss_E
        return rewards_EL

    @property
    def previous_EL(self) -> NDArray[np.int64]:
        """Groups chosen at the site before each; 0 at the first."""
        previous_EL = np.zeros_like(self.actions_EL)
        previous_EL[:, 1:] = self.actions_EL[:, :-1] + 1
        return previous_EL


COLUMNS = tuple(field.name for field in fields(Episodes) if field.name != "backbone_version")


class EpisodeReplay:
    """A ring of the last episodes, all on one version of the backbone.

    When the first episode on a newer backbone comes, the older ones are dropped: their features
    and losses are those of another network.

    Args:
        capacity: episodes kept.
        seed: of the draws.
    """

    def __init__(self, capacity: int, *, seed: int) -> None:
        if capacity < 1:
            raise ValueError(f"`capacity >= 1` must hold, but got {capacity}.")
        self.capacity = capacity
        self.backbone_version = 0
        self._rng = np.random.default_rng(seed)
        self._ring: dict[str, NDArray[Any]] = {}
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        """Return the number of episodes held."""
        return self._size

    def flush(self, backbone_version: int) -> None:
        """Drop all episodes; from here on only those on this backbone, or a newer one, count."""
        self.backbone_version = backbone_version
        self._next = self._size = 0

    def add(self, episodes: Episodes) -> int:
        """Keep episodes; return how many. None are kept that ran on an older backbone."""
        if episodes.backbone_version < self.backbone_version:
            return 0
        if episodes.backbone_version > self.backbone_version:
            self.flush(episodes.backbone_version)
        count = min(len(episodes.penalty_E), self.capacity)
        slots = (self._next + np.arange(count)) % self.capacity
        for name in COLUMNS:
            column = getattr(episodes, name)
            if name not in self._ring:
                self._ring[name] = np.zeros((self.capacity, *column.shape[1:]), column.dtype)
            self._ring[name][slots] = column[-count:]
        self._next = (self._next + count) % self.capacity
        self._size = min(self._size + count, self.capacity)
        return count

    def sample(self, count: int, penalties: PenaltyRange | None = None) -> Episodes:
        """Return ``count`` episodes drawn evenly, with replacement.

        Args:
            count: of episodes.
            penalties: draw each episode's penalty anew from these; None leaves what it ran under.

        Raises:
            ValueError: no episode is held.
        """
        if not self._size:
            raise ValueError("An empty replay has no episodes to sample.")
        slots = self._rng.integers(self._size, size=count)
        columns = {name: ring[slots] for name, ring in self._ring.items()}
        if penalties is not None:
            columns["penalty_E"] = penalties.draw(count, self._rng)
        return Episodes(**columns, backbone_version=self.backbone_version)

    def get_state(self) -> dict[str, Any]:
        """Return everything that `set_state` needs, episodes included."""
        return {
            "ring": {name: column[: self._size].copy() for name, column in self._ring.items()},
            "next": self._next,
            "version": self.backbone_version,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave, of a replay of the same capacity."""
        self.flush(state["version"])
        if state["ring"]:
            self.add(Episodes(**state["ring"], backbone_version=state["version"]))
        self._next = state["next"]
        self._rng.bit_generator.state = state["rng"]
