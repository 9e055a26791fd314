"""Tune's callback: what happens to trials goes to the process's listener, which does not wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial

from runtime_pruning.sweeping.trial import ENDED


class Listener(Protocol):
    """What wants to hear of a sweep's progress."""

    def on_trial_start(self, params: dict[str, Any]) -> None:
        """Take note that the trial with these sampled parameters starts, or goes on."""

    def on_point(self, folder: Path) -> None:
        """Take note of a point, whose folder is complete."""

    def on_trial_end(self, params: dict[str, Any], error: Path | None) -> None:
        """Take note that a trial ended; ``error`` holds the traceback if it failed."""


# Tune pickles its callbacks with the experiment, and a listener holds what cannot be pickled. So a
# callback carries its sweep's id only, and finds the listener of the process that it is in.
_listeners: dict[str, Listener] = {}


@contextmanager
def listening(sweep_id: str, listener: Listener) -> Iterator[None]:
    """Have ``listener`` hear of a sweep's progress inside the block."""
    _listeners[sweep_id] = listener
    try:
        yield
    finally:
        del _listeners[sweep_id]


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Tells a sweep's listener what Tune tells us."""

    def __init__(self, sweep_id: str) -> None:
        self.sweep_id = sweep_id

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Open the trial's run before its first point: it may fail before that."""
        _listeners[self.sweep_id].on_trial_start(trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Hand on the folder of the point that a trial has just reported."""
        if not result.get(ENDED):
            folder = Path(trial.storage.trial_fs_path) / result["checkpoint_dir_name"]
            _listeners[self.sweep_id].on_point(folder)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Count a trial that ended well."""
        _listeners[self.sweep_id].on_trial_end(trial.config, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Say which configuration failed for good, and where its traceback lies."""
        log = Path(trial.local_path) / "error.txt"
        _listeners[self.sweep_id].on_trial_end(trial.config, log)
