"""How often an agent explores."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpsilonSchedule:
    """The share of random decisions, falling linearly, then held.

    The ends are the paper's (Lin et al. 2017), the horizon is a choice.

    Attributes:
        start, end: shares in [0, 1].
        steps: decisions, over all environments, after which ``end`` is reached.
    """

    start: float = 1.0
    end: float = 0.1
    steps: int = 20_000

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`0 <= {name} <= 1` must hold, but got {getattr(self, name)}.")
        if self.steps < 1:
            raise ValueError(f"`steps >= 1` must hold, but got {self.steps}.")

    def at(self, step: int) -> float:
        """Return the share of random decisions after ``step`` decisions."""
        return self.start + (self.end - self.start) * min(max(step / self.steps, 0.0), 1.0)
