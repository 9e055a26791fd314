"""How often an agent explores."""

from dataclasses import replace

from runtime_pruning.config import Count, Share, SomeShare, config_class


@config_class
class EpsilonSchedule:
    """The share of random decisions, falling linearly, then held.

    The ends are the paper's (Lin et al. 2017), the horizon is a choice.

    Attributes:
        start, end: shares in [0, 1].
        share: of all episodes that the agent is trained for, after which ``end`` is reached; half
            of them where nothing else is said.
        steps: the same in decisions, over all environments, in place of ``share``.
    """

    start: Share = 1.0
    end: Share = 0.1
    share: SomeShare | None = None
    steps: Count | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.share is not None:
            raise ValueError(
                f"Either `share` or `steps` says when exploration ends, but got {self.share} and "
                f"{self.steps}."
            )

    def over(self, decisions: int | None) -> "EpsilonSchedule":
        """Return the schedule in steps, of so many decisions in all.

        Raises:
            ValueError: it is a share, and nobody knows of what.
        """
        if self.steps is not None:
            return self
        if decisions is None:
            raise ValueError("`epsilon` must name `steps` where the number of episodes is unknown.")
        share = 0.5 if self.share is None else self.share
        return replace(self, share=None, steps=max(1, int(share * decisions)))

    def at(self, step: int) -> float:
        """Return the share of random decisions after ``step`` decisions; of a schedule in steps."""
        assert self.steps is not None
        return self.start + (self.end - self.start) * min(max(step / self.steps, 0.0), 1.0)
