"""What trials go on from is deleted once they go on from something later.

A trial's state is as large as its network, and its agent's on top: with one for each point it would
be most of a sweep's disk.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from runtime_pruning.places import Place
from runtime_pruning.sweeping.reports import STATE

# A driver that is killed goes back to Tune's last snapshot, at most seconds old: see
# `tuning.use_tune_settings`.
KEPT_SECONDS = 120.0


class States:
    """The states of the trials that are running.

    Args:
        place: the sweep's.
        clock: seconds.
    """

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._clock = place, clock
        self._points: dict[str, deque[tuple[str, float]]] = {}

    def add(self, point: str) -> None:
        """Take note of a trial's new point; forget states that were followed by another long ago.

        Args:
            point: path of its folder, in the sweep's or on its file system.
        """
        trial, now = str(PurePosixPath(point).parent), self._clock()
        points = self._points.setdefault(trial, deque())
        points.append((point, now))
        while len(points) > 1 and points[1][1] + KEPT_SECONDS <= now:
            self._forget(points.popleft()[0])

    def end(self, points: Sequence[str], *, failed: bool) -> None:
        """Forget the states of a trial that has ended; of one that failed the last one stays.

        Args:
            points: paths of its points' folders, oldest first.
            failed: whether the trial may be started again.
        """
        for point in points[:-1] if failed else points:
            self._forget(point)

    def _forget(self, point: str) -> None:
        path = PurePosixPath(point)
        if path.is_relative_to(self._place.path):
            path = path.relative_to(self._place.path)
        self._place.delete(f"{path}/{STATE}")
