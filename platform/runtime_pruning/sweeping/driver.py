"""A sweep from its checked material to its frontier: the part that runs on the driver.

Only the driver writes to MLflow. Whatever it has to write lies on disk before: the trials' points
under Tune's storage, the controls' beside them. So a sweep that was killed goes on when the same
sweep id is started again, and logs nothing twice.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from tqdm import tqdm

from runtime_pruning.errors import InterruptedSweepError
from runtime_pruning.frontier.records import HeldOut
from runtime_pruning.glossary import TEST_RECORD
from runtime_pruning.methods import Method
from runtime_pruning.sweeping.callback import SweepCallback, listening
from runtime_pruning.sweeping.checks import Material, method_config
from runtime_pruning.sweeping.cluster import (
    alive_nodes,
    refuse_what_never_fits,
    sigint_given_back,
)
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.prepare import Prepared
from runtime_pruning.sweeping.proving import examine, prove_point
from runtime_pruning.sweeping.search import FrontierSearch, opening_points
from runtime_pruning.sweeping.trial import ENDED, Shared, run_control, run_trial


@dataclass(kw_only=True)
class Sweep:
    """One sweep on the cluster that Ray is connected to.

    Attributes:
        material: the checked configuration with its data.
        prepared: the network that all trials start from.
        sweep_id: names the sweep; the same one again goes on where it stopped.
        folder: absolute, on storage that all nodes see.
        ledger: where points are written.
    """

    material: Material
    prepared: Prepared
    sweep_id: str
    folder: Path
    ledger: Ledger
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run the controls and the trials, then try the front's points, then sit the exam.

        The exam is the only reading of the test split: of the front, and of its points' controls.
        """
        env_runners = self._env_runners()
        refuse_what_never_fits(self.sweep.resources, env_runners, alive_nodes())
        shared = Shared(
            data=ray.put(self.material.data),
            network=ray.put(self.prepared.network),
            dense=ray.put(self.prepared.dense),
            prepared_key=self.prepared.key,
        )
        self._run_controls(shared)
        self._run_trials(shared, env_runners)
        tried = self.ledger.defendants(self.sweep.proof.points)
        self._try(tried, "validation", shared)
        self._sit_exam(shared)
        examined = set(self.ledger.examinees())
        self._try([folder for folder in tried if folder in examined], "test", shared)

    @property
    def sweep(self) -> SweepConfig:
        """The configuration."""
        return self.material.sweep

    def _env_runners(self) -> int:
        method: type[Method[Any]] = self.material.method
        first = opening_points(self.sweep)[0]
        return method.env_runners(method_config(self.sweep, method, first))

    def _run_controls(self, shared: Shared) -> None:
        """Measure each control at the finest group count, whose widths include the coarser ones."""
        groups = self.sweep.group_counts[-1]
        running = [
            ray.remote(num_cpus=1)(run_control).remote(
                name,
                groups,
                self.folder / "controls" / name,
                sweep=self.sweep,
                sweep_id=self.sweep_id,
                shared=shared,
            )
            for name in self.sweep.controls
        ]
        for folders in running:
            for folder in ray.get(folders):
                self.ledger.add(folder)

    def _run_trials(self, shared: Shared, env_runners: int) -> None:
        """Let Tune run the trials, or go on with those that an earlier start left."""
        trainable = tune.with_resources(
            tune.with_parameters(
                run_trial, sweep=self.sweep, sweep_id=self.sweep_id, shared=shared
            ),
            self._bundle(env_runners),
        )
        with tqdm(total=self.sweep.trials, desc="Trials", unit="trial", leave=False) as bar:
            self._bar = bar
            with listening(self.sweep_id, self), sigint_given_back():
                results = self._tuner(trainable).fit()
        # What a killed driver had not heard of is on disk all the same.
        for result in results:
            for checkpoint, _ in result.best_checkpoints:
                self.ledger.add(Path(checkpoint.path))
        ended = sum(_has_ended(result) for result in results)
        if ended < self.sweep.trials:
            # Tune ends quietly when it is interrupted.
            raise InterruptedSweepError(
                f"The sweep was stopped when {ended} of {self.sweep.trials} trials had ended."
            )

    def on_point(self, folder: Path) -> None:
        """Write a trial's point to the ledger."""
        self.ledger.add(folder)

    def on_trial_end(self, failure: str | None) -> None:
        """Move the progress bar on; keep and show what failed."""
        self._bar.update()
        if failure is not None:
            self.failures.append(failure)
            tqdm.write(failure)

    def _bundle(self, env_runners: int) -> tune.PlacementGroupFactory:
        needed = self.sweep.resources
        head = {"CPU": needed.cpus} | ({"GPU": needed.gpus} if needed.gpus else {})
        return tune.PlacementGroupFactory(
            [head, *[{"CPU": needed.cpus_per_env_runner}] * env_runners]
        )

    def _tuner(self, trainable: Any) -> tune.Tuner:
        path = self.folder / "trials"
        # Tuner.can_restore is content with less than a snapshot, and then starts anew.
        if list(path.glob("experiment_state-*.json")):
            return tune.Tuner.restore(
                str(path), trainable=trainable, resume_unfinished=True, resume_errored=True
            )
        needed = self.sweep.resources
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=FrontierSearch(self.sweep),
                num_samples=self.sweep.trials,
                max_concurrent_trials=needed.concurrent,
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(self.folder),
                failure_config=tune.FailureConfig(max_failures=needed.max_failures),
                callbacks=[SweepCallback(self.sweep_id)],
                verbose=0,
            ),
        )

    def _try(self, folders: list[Path], split: HeldOut, shared: Shared) -> None:
        """Hold points against their controls: do their decisions depend on the image?"""
        dense = self.ledger.dense_folder()
        running = [
            ray.remote(num_cpus=1)(prove_point).remote(
                folder, dense, split=split, sweep=self.sweep, data=shared.data
            )
            for folder in folders
        ]
        for done in tqdm(running, desc=f"Controls, {split}", unit="point", leave=False):
            ray.get(done)
        for folder in folders:
            self.ledger.add_proof(folder, split)

    def _sit_exam(self, shared: Shared) -> None:
        """Measure the front, and the dense network, on the test split."""
        folders = self.ledger.examinees()
        running = [
            ray.remote(num_cpus=1)(examine).remote(folder, sweep=self.sweep, data=shared.data)
            for folder in folders
            if not (folder / TEST_RECORD).exists()
        ]
        for done in tqdm(running, desc="Test split", unit="point", leave=False):
            ray.get(done)
        for folder in folders:
            self.ledger.add_test(folder, folder / TEST_RECORD)


def _has_ended(result: tune.Result) -> bool:
    """Whether a trial ran to its end or failed for good."""
    return result.error is not None or bool((result.metrics or {}).get(ENDED))


def _folder_name(trial: Any) -> str:
    """Return a trial's folder name; Tune's own spells out every parameter."""
    return f"trial-{trial.trial_id}"


def use_tune_settings() -> None:
    """Set what Tune reads from the environment; before it is first used."""
    # A snapshot older than a finished trial makes a resumed sweep run that trial again.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    # It warns of each second that a point is written to MLflow and drawn; Tune need not hurry.
    logging.getLogger("ray.tune.utils.util").setLevel(logging.ERROR)
    # The sweep prints its own lines; Tune's newer output prints a box even when told not to.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
