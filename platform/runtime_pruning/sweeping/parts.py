"""A sweep's trials come in parts: those of its preset, then what ``--extend`` added.

Each part is an experiment of Ray Tune in a folder of its own, since Tune cannot add trials to one
that has ended. ``parts.json`` in the sweep's place says how many trials each has, and how many
parts have ended.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from runtime_pruning.errors import ConfigError
from runtime_pruning.places import Place

PARTS = "parts.json"


class Part(NamedTuple):
    """Trials that were asked for together.

    Attributes:
        number: of the part, from 0.
        trials: how many.
    """

    number: int
    trials: int

    @property
    def folder(self) -> str:
        """The folder of its trials, in the sweep's."""
        return "trials" if self.number == 0 else f"trials-{self.number + 1}"


class Parts:
    """The parts of one sweep, as its place keeps them.

    Args:
        place: the sweep's.
        counts: trials of each part.
        ended: how many parts have ended.
    """

    def __init__(self, place: Place, counts: list[int], ended: int = 0) -> None:
        self._place, self._counts, self._ended = place, counts, ended

    @classmethod
    def open(cls, place: Place, trials: int, extend: int | None = None) -> "Parts":
        """Return a sweep's parts; with ``extend`` one more, unless that one is under way.

        So the command that was interrupted goes on when it is given again, ``--extend`` with it.

        Raises:
            ConfigError: an extension of less than a trial, or of a sweep that has not ended.
        """
        text = place.read_text(PARTS)
        parts = cls(place, [trials])
        if text is not None:
            kept = json.loads(text)
            parts = cls(place, kept["trials"], kept["ended"])
        if extend is not None:
            parts._extend(extend)
        parts._write()
        return parts

    def __iter__(self) -> Iterator[Part]:
        return iter([Part(number, count) for number, count in enumerate(self._counts)])

    @property
    def trials(self) -> int:
        """Trials of all parts."""
        return sum(self._counts)

    def end(self, part: Part) -> None:
        """Take note that all trials of a part have ended."""
        if part.number >= self._ended:
            self._ended = part.number + 1
            self._write()

    def _extend(self, trials: int) -> None:
        if trials < 1:
            raise ConfigError(f"`extend >= 1` must hold, but got {trials}.")
        if self._ended == len(self._counts):
            self._counts.append(trials)
        elif len(self._counts) == 1 or self._counts[-1] != trials:
            raise ConfigError(
                f"--extend {trials} adds trials to a sweep whose trials have ended, but "
                f"{self._place.address} still has some of {self.trials} to run: start it again "
                "without --extend first."
            )

    def _write(self) -> None:
        kept = {"trials": self._counts, "ended": self._ended}
        self._place.write_text(PARTS, json.dumps(kept) + "\n")
