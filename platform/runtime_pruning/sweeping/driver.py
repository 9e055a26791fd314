"""A sweep from its checked material to its frontier: the part that runs on the driver.

Only the driver writes to MLflow. Whatever it has to write lies on disk before: the trials' points
under Tune's storage, the controls' beside them. So a sweep that was killed goes on when the same
sweep id is started again, and logs nothing twice.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optuna
import ray
from ray import tune
from tqdm import tqdm

from runtime_pruning.errors import InterruptedSweepError
from runtime_pruning.frontier.records import HeldOut
from runtime_pruning.resources import Request
from runtime_pruning.sweeping.callback import SweepCallback, listening
from runtime_pruning.sweeping.checks import Material
from runtime_pruning.sweeping.cluster import sigint_given_back
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.point_timing import time_point, timing_options
from runtime_pruning.sweeping.prepare import Prepared
from runtime_pruning.sweeping.provenance import code_version
from runtime_pruning.sweeping.proving import measure_on_test, prove_point
from runtime_pruning.sweeping.search import FrontierSearch
from runtime_pruning.sweeping.trial import (
    ENDED,
    SweepInputs,
    run_control,
    run_trial,
    trial_config,
)

Subject = TypeVar("Subject")


class EndedTask(NamedTuple):
    """What a task returned, or why it failed."""

    result: Any
    error: str | None


@dataclass(kw_only=True)
class Sweep:
    """One sweep on the cluster that Ray is connected to.

    Attributes:
        material: the checked configuration with its data.
        prepared: the network that all trials start from.
        sweep_id: names the sweep; the same one again goes on where it stopped.
        folder: absolute, on storage that all nodes see.
        ledger: where points are written.
        shared: what the method's `Method.prepare` returned.
    """

    material: Material
    prepared: Prepared
    sweep_id: str
    folder: Path
    ledger: Ledger
    shared: Any = None
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run the controls and the trials, then prove the front's points, test and time them.

        That is the only reading of the test split: of the front, and of its points' controls.
        """
        inputs = SweepInputs(
            data=ray.put(self.material.data),
            network=ray.put(self.prepared.network),
            dense=ray.put(self.prepared.dense),
            prepared_key=self.prepared.key,
            network_effort=self.prepared.network_effort,
            dense_effort=self.prepared.dense_effort,
            code_version=code_version(),
            folder=self.folder,
            shared=ray.put(self.shared),
        )
        controls = self._run_controls(inputs)
        inputs = replace(inputs, control_points=tuple(controls))
        self._run_trials(inputs)
        proved = self._prove(
            self.ledger.proof_candidates(self.sweep.proof.points), "validation", inputs
        )
        tested = set(self._measure_on_test(inputs))
        self._prove([folder for folder in proved if folder in tested], "test", inputs)
        self._time(inputs)

    @property
    def sweep(self) -> SweepConfig:
        """The configuration."""
        return self.material.sweep

    def _trial_processes(self) -> list[Request]:
        """Return what each process of a trial asks for, its own first."""
        return self.sweep.resources.trial_processes(trains_agent=self.material.method.trains_agent)

    def _run_controls(self, inputs: SweepInputs) -> list[Path]:
        """Measure each control at the finest group count, whose widths include the coarser ones.

        Returns:
            The folders of their points.
        """
        groups = self.sweep.group_counts[-1]
        running = {
            name: ray.remote(**self.sweep.resources.control.options)(run_control).remote(
                name,
                groups,
                self.folder / "controls" / name,
                sweep=self.sweep,
                sweep_id=self.sweep_id,
                inputs=inputs,
            )
            for name in self.sweep.controls
        }
        folders: list[Path] = []
        for name, task in self._ended(running, "Control {}"):
            folders += task.result or ()
            for folder in task.result or ():
                self.ledger.add(folder)
            params = {"groups": groups}
            config = trial_config(self.sweep, name, params, self.prepared.key)
            self.ledger.end_trial(config, task.error)
        return folders

    def _run_trials(self, inputs: SweepInputs) -> None:
        """Let Tune run the trials, or go on with those that an earlier start left."""
        trainable = tune.with_resources(
            tune.with_parameters(
                run_trial, sweep=self.sweep, sweep_id=self.sweep_id, inputs=inputs
            ),
            self._bundle(),
        )
        with tqdm(total=self.sweep.trials, desc="Trials", unit="trial", leave=False) as bar:
            self._bar = bar
            with listening(self.sweep_id, self), sigint_given_back():
                results = self._tuner(trainable).fit()
        # What a killed driver had not heard of is on disk all the same.
        for result in results:
            for checkpoint, _ in result.best_checkpoints:
                self.ledger.add(Path(checkpoint.path))
            if _has_ended(result):
                error = None if result.error is None else str(result.error)
                self.ledger.end_trial(self._config_of(result.config or {}), error)
        ended = sum(_has_ended(result) for result in results)
        if ended < self.sweep.trials:
            # Tune ends quietly when it is interrupted.
            raise InterruptedSweepError(
                f"The sweep was stopped when {ended} of {self.sweep.trials} trials had ended."
            )

    def on_point(self, folder: Path) -> None:
        """Write a trial's point to the ledger."""
        self.ledger.add(folder)

    def on_trial_start(self, params: dict[str, Any]) -> None:
        """Open a trial in the ledger."""
        self.ledger.start_trial(self._config_of(params))

    def on_trial_end(self, params: dict[str, Any], error: Path | None) -> None:
        """Close a trial in the ledger; move the progress bar on; keep and show what failed."""
        self._bar.update()
        self.ledger.end_trial(self._config_of(params), None if error is None else _text_of(error))
        if error is not None:
            self._fail(f"The trial with {params} failed: see {error}")

    def _config_of(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return all that a trial's result depends on."""
        return trial_config(self.sweep, self.sweep.method, params, self.prepared.key)

    def _fail(self, failure: str) -> None:
        """Keep and show what failed; the sweep goes on."""
        self.failures.append(failure)
        tqdm.write(failure)

    def _bundle(self) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([each.bundle for each in self._trial_processes()])

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

    def _prove(self, folders: list[Path], split: HeldOut, inputs: SweepInputs) -> list[Path]:
        """Hold points against their controls: do their decisions depend on the image?"""
        fixed = self.ledger.fixed_folders()
        running = {
            folder: ray.remote(**self.sweep.resources.control.options)(prove_point).remote(
                folder, fixed, split=split, sweep=self.sweep, data=inputs.data
            )
            for folder in folders
        }
        ended = self._ended(running, f"Controls, {split}, of {{}}")
        done = [folder for folder, task in ended if task.error is None]
        for folder in done:
            self.ledger.add_proof(folder, split)
        return done

    def _measure_on_test(self, inputs: SweepInputs) -> list[Path]:
        """Measure the front, and the dense network, on the test split; return what was measured."""
        running = {
            folder: ray.remote(**self.sweep.resources.control.options)(measure_on_test).remote(
                folder, sweep=self.sweep, data=inputs.data
            )
            for folder in self.ledger.test_candidates()
        }
        ended = self._ended(running, "Test split, of {}")
        done = [folder for folder, task in ended if task.error is None]
        for folder in done:
            self.ledger.add_test(folder)
        return done

    def _time(self, inputs: SweepInputs) -> None:
        """Time the points that are reported, once nothing else of the sweep runs."""
        folders = self.ledger.timing_candidates(self.sweep.timing.points)
        if not folders:
            return
        dense = self.ledger.dense_folder()
        task = ray.remote(**timing_options(self.sweep))(time_point)
        running = {
            folder: task.remote(folder, dense, sweep=self.sweep, data=inputs.data)
            for folder in folders
        }
        for folder, ended in self._ended(running, "Timing, of {}"):
            if ended.error is None:
                self.ledger.add_timings(folder, ended.result)

    def _ended(
        self, running: Mapping[Subject, "ray.ObjectRef[Any]"], what: str
    ) -> Iterator[tuple[Subject, EndedTask]]:
        """Yield each subject with how its task ended; one that failed is shown, and kept.

        Args:
            running: tasks by what they are about.
            what: the task, with a place for its subject.
        """
        title = what.partition("{")[0].strip().removesuffix(", of")
        for subject, task in tqdm(running.items(), desc=title, leave=False):
            try:
                yield subject, EndedTask(ray.get(task), None)
            except ray.exceptions.RayError as error:
                text = str(error).strip()
                self._fail(f"{what.format(subject)} failed: {text.splitlines()[-1]}")
                yield subject, EndedTask(None, text)


def _has_ended(result: tune.Result) -> bool:
    """Whether a trial ran to its end or failed for good."""
    return result.error is not None or bool((result.metrics or {}).get(ENDED))


def _text_of(path: Path) -> str:
    """Return a file's text, or that it is not there: a lost node takes its files along."""
    try:
        return path.read_text()
    except OSError as error:
        return f"No traceback is left: {error}"


def _folder_name(trial: Any) -> str:
    """Return a trial's folder name; Tune's own spells out every parameter."""
    return f"trial-{trial.trial_id}"


def use_tune_settings() -> None:
    """Set what Tune reads from the environment; before it is first used."""
    # A snapshot older than a finished trial makes a resumed sweep run that trial again.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    # The sweep prints its own lines; Tune's newer output prints a box even when told not to.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
