"""Tune's callback: what happens to trials goes to the process's listener, which does not wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial

from runtime_pruning.sweeping.reports import ENDED, INFEASIBLE, Stop


class Listener(Protocol):
    """What wants to hear of a sweep's progress."""

    def on_trial_start(self, params: dict[str, Any]) -> None:
        """Take note that the trial with these sampled parameters starts, or goes on."""

    def on_point(self, folder: str) -> None:
        """Take note of a point, whose folder on the results' file system is complete."""

    def on_stop(self, params: dict[str, Any], stop: Stop) -> None:
        """Take note that a trial is stopped, since others are better; its end comes next."""

    def on_trial_end(
        self, params: dict[str, Any], error: Path | None, infeasible: str = ""
    ) -> None:
        """Take note that a trial ended.

        Args:
            params: of the trial.
            error: holds the traceback if it failed.
            infeasible: why points that were asked for do not exist.
        """


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


def listener_of(sweep_id: str) -> Listener:
    """Return who hears of a sweep's progress in this process."""
    return _listeners[sweep_id]


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Tells a sweep's listener what Tune tells us."""

    def __init__(self, sweep_id: str) -> None:
        self.sweep_id = sweep_id

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Open the trial's run before its first point: it may fail before that."""
        listener_of(self.sweep_id).on_trial_start(trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Hand on the folder of the point that a trial has just reported."""
        if not result.get(ENDED):
            folder = f"{trial.storage.trial_fs_path}/{result['checkpoint_dir_name']}"
            listener_of(self.sweep_id).on_point(folder)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Count a trial that ended well."""
        infeasible = (trial.last_result or {}).get(INFEASIBLE, "")
        listener_of(self.sweep_id).on_trial_end(trial.config, None, infeasible)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Say which configuration failed for good, and where its traceback lies."""
        log = Path(trial.local_path) / "error.txt"
        listener_of(self.sweep_id).on_trial_end(trial.config, log)
