"""How often an agent explores."""

from runtime_pruning.config import Count, Share, config_class


@config_class
class EpsilonSchedule:
    """The share of random decisions, falling linearly, then held.

    The ends are the paper's (Lin et al. 2017), the horizon is a choice.

    Attributes:
        start, end: shares in [0, 1].
        steps: decisions, over all environments, after which ``end`` is reached.
    """

    start: Share = 1.0
    end: Share = 0.1
    steps: Count = 20_000

    def at(self, step: int) -> float:
        """Return the share of random decisions after ``step`` decisions."""
        return self.start + (self.end - self.start) * min(max(step / self.steps, 0.0), 1.0)
