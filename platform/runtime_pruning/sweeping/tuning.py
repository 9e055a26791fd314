"""How Ray Tune runs the trials of a sweep, and goes on with them."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.places import Place
from runtime_pruning.resources import Request
from runtime_pruning.sweeping.callback import SweepCallback
from runtime_pruning.sweeping.checks import Material
from runtime_pruning.sweeping.cluster import alive_nodes, may_grow, most_at_once
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.early_stopping import FrontierRungs
from runtime_pruning.sweeping.parts import Part
from runtime_pruning.sweeping.search import FrontierSearch

_FOLDER = "trial-"  # before a trial's id, in its folder's name


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What Tune is told of one sweep.

    Attributes:
        material: the checked configuration with its data.
        sweep_id: the sweep's.
        place: the sweep's.
    """

    material: Material
    sweep_id: str
    place: Place

    @property
    def sweep(self) -> SweepConfig:
        """The configuration."""
        return self.material.sweep

    @property
    def bundle(self) -> tune.PlacementGroupFactory:
        """What Ray reserves for a trial."""
        return tune.PlacementGroupFactory([each.bundle for each in self._processes])

    @property
    def _processes(self) -> list[Request]:
        """Return what each process of a trial asks for, its own first."""
        return self.sweep.resources.trial_processes(trains_agent=self.material.method.trains_agent)

    def restored(self, part: Part, trainable: Any) -> tune.Tuner | None:
        """Return what goes on with a part's trials; None where it has none yet."""
        trials = self.place / part.folder
        # Tuner.can_restore is content with less than a snapshot, and then starts anew.
        if not any(name.startswith("experiment_state-") for name in trials.names()):
            return None
        tuner = tune.Tuner.restore(
            trials.path,
            storage_filesystem=trials.filesystem,
            trainable=trainable,
            resume_unfinished=True,
            resume_errored=True,
        )
        # What was stored with the experiment; resources may have changed since, and trials come.
        stored = tuner._local_tuner._tune_config
        stored.max_concurrent_trials = self._at_once
        stored.scheduler = self._scheduler(tuner.get_results())
        return tuner

    def new(self, part: Part, trainable: Any, known: Sequence[OperatingPoint]) -> tune.Tuner:
        """Return what runs a part from its first trial on.

        Args:
            part: of the sweep.
            trainable: with its resources.
            known: the swept method's points so far, where the sweep is extended.
        """
        place, failures = self.place, self.sweep.resources.max_failures
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=FrontierSearch(self.sweep, known),
                num_samples=part.trials * len(self.sweep.trial_seeds),
                max_concurrent_trials=self._at_once,
                scheduler=self._scheduler(()),
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                name=part.folder,
                storage_path=place.path,
                storage_filesystem=place.filesystem,
                failure_config=tune.FailureConfig(max_failures=failures),
                callbacks=[SweepCallback(self.sweep_id)],
                verbose=0,
            ),
        )

    def _scheduler(self, results: Iterable[tune.Result]) -> FrontierRungs | None:
        """Return what stops trials, in the knowledge of what earlier starts brought."""
        if self.sweep.early_stopping is None:
            return None
        known = [
            (str(Path(result.path).name).removeprefix(_FOLDER), metrics)
            for result in results
            for _, metrics in result.best_checkpoints
        ]
        return FrontierRungs(self.sweep.early_stopping, self.sweep_id, known)

    @property
    def _at_once(self) -> int | None:
        """Return how many trials may wait or run: as many as the cluster holds, where it is known.

        Without a number Tune keeps one waiting, and starts one at a time on however many nodes.
        """
        if self.sweep.resources.concurrent is not None or may_grow():
            return self.sweep.resources.concurrent
        return most_at_once(self._processes, alive_nodes())


def _folder_name(trial: Any) -> str:
    """Return a trial's folder name; Tune's own spells out every parameter."""
    return f"{_FOLDER}{trial.trial_id}"


def use_tune_settings() -> None:
    """Set what Tune reads from the environment; before it is first used."""
    # A snapshot older than a finished trial makes a resumed sweep run that trial again.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    # The sweep prints its own lines; Tune's newer output prints a box even when told not to.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
