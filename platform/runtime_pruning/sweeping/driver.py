"""A sweep from its checked material to its frontier: the part that runs on the driver.

Only the driver writes to MLflow. Whatever it has to write lies on disk before: the trials' points
under Tune's storage, the controls' beside them. So a sweep that was killed goes on when the same
sweep id is started again, and logs nothing twice.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ray
from ray import tune
from tqdm import tqdm

from runtime_pruning.errors import InterruptedSweepError
from runtime_pruning.frontier.points import trial_key
from runtime_pruning.frontier.records import HeldOut
from runtime_pruning.places import Mirror, Place, in_folders
from runtime_pruning.sweeping.callback import listening
from runtime_pruning.sweeping.checks import Material
from runtime_pruning.sweeping.cluster import sigint_given_back
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.exam import count_reading
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.parts import Part, Parts
from runtime_pruning.sweeping.point_timing import time_point, timing_options
from runtime_pruning.sweeping.prepare import Prepared
from runtime_pruning.sweeping.provenance import code_version
from runtime_pruning.sweeping.proving import is_tested, measure_on_test, prove_point
from runtime_pruning.sweeping.reports import ENDED, STATE, Stop, stop_mark
from runtime_pruning.sweeping.states import States
from runtime_pruning.sweeping.trial import SweepInputs, run_control, run_trial, trial_config
from runtime_pruning.sweeping.tuning import Tuning

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
        mirror: of the sweep's folder, on storage that all nodes see; what the driver reads of it.
        ledger: where points are written.
        parts: in which its trials were asked for.
        shared: what the method's `Method.prepare` returned.
    """

    material: Material
    prepared: Prepared
    sweep_id: str
    mirror: Mirror
    ledger: Ledger
    parts: Parts
    shared: Any = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._states = States(self.mirror.place)
        self._tuning = Tuning(
            material=self.material, sweep_id=self.sweep_id, place=self.mirror.place
        )

    def run(self) -> None:
        """Run the controls and the trials, then prove the front's points, test and time them.

        The exam, where it is asked for, is the only reading of the test split: of the points that
        are reported or held against, and of the proved points' controls.
        """
        inputs = SweepInputs(
            data=ray.put(self.material.data),
            network=ray.put(self.prepared.network),
            dense=ray.put(self.prepared.dense),
            prepared_key=self.prepared.key,
            network_effort=self.prepared.network_effort,
            dense_effort=self.prepared.dense_effort,
            code_version=code_version(),
            place=self.mirror.place,
            shared=ray.put(self.shared),
        )
        controls = self._run_controls(inputs)
        inputs = replace(
            inputs, control_points=tuple(self.mirror.place_of(folder) for folder in controls)
        )
        self._run_trials(inputs)
        proved = self._prove(
            self.ledger.proof_candidates(self.sweep.proof.points), "validation", inputs
        )
        if self.sweep.exam:
            self._hold_exam(proved, inputs)
        self._time(inputs)

    def _hold_exam(self, proved: list[Path], inputs: SweepInputs) -> None:
        """Measure what was chosen on the test split, count the reading, prove it there."""
        unread = [each for each in self.ledger.test_candidates() if not is_tested(each)]
        tested = set(self._measure_on_test(inputs))
        if tested & set(unread):
            self.ledger.add_reading(count_reading(self.mirror.place, len(tested & set(unread))))
        self._prove([folder for folder in proved if folder in tested], "test", inputs)

    @property
    def sweep(self) -> SweepConfig:
        """The configuration."""
        return self.material.sweep

    @property
    def _seeds(self) -> int:
        """How often each configuration is tried."""
        return len(self.sweep.trial_seeds)

    def _run_controls(self, inputs: SweepInputs) -> list[Path]:
        """Measure each control at the finest group count, whose widths include the coarser ones.

        Returns:
            The folders of their points.
        """
        groups = self.sweep.group_counts[-1]
        running = {
            name: ray.remote(**self.sweep.resources.control.options)(in_folders).remote(
                partial(run_control, name, groups),
                self.mirror.place / f"controls/{name}",
                sweep=self.sweep,
                sweep_id=self.sweep_id,
                inputs=inputs,
            )
            for name in self.sweep.controls
        }
        folders: list[Path] = []
        for name, task in self._ended(running, "Control {}"):
            for point in task.result or ():
                folders.append(self._fetch(f"controls/{name}/{point}"))
                self.ledger.add(folders[-1])
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
            self._tuning.bundle,
        )
        with tqdm(
            total=self.parts.trials * self._seeds, desc="Trials", unit="trial", leave=False
        ) as bar:
            self._bar = bar
            with listening(self.sweep_id, self), sigint_given_back():
                for part in self.parts:
                    self._run_part(part, trainable)

    def _run_part(self, part: Part, trainable: Any) -> None:
        """Run the trials of a part, those that an earlier start left unfinished first."""
        tuner = self._tuning.restored(part, trainable)
        if tuner is None:
            known = self.ledger.claims_of(self.sweep.method) if part.number else []
            tuner = self._tuning.new(part, trainable, known)
        else:
            # What an earlier start brought is shown before anything new is.
            self._bar.update(self._take_in(tuner.get_results()))
        # What a killed driver had not heard of is on disk all the same.
        ended = self._take_in(tuner.fit())
        asked = part.trials * self._seeds
        if ended < asked:
            # Tune ends quietly when it is interrupted.
            raise InterruptedSweepError(
                f"The sweep was stopped when {ended} of {asked} trials had ended."
            )
        self.parts.end(part)

    def _take_in(self, results: Iterable[tune.Result]) -> int:
        """Write what trials left to the ledger; return how many of them have ended."""
        ended = 0
        for result in results:
            points = sorted(checkpoint.path for checkpoint, _ in result.best_checkpoints)
            for point in points:
                self.ledger.add(self._fetch(point))
            if self._has_ended(result):
                ended += 1
                self._states.end(points, failed=result.error is not None)
                error = None if result.error is None else str(result.error)
                self.ledger.end_trial(self._config_of(result.config or {}), error)
        return ended

    def on_point(self, folder: str) -> None:
        """Write a trial's point to the ledger."""
        self.ledger.add(self._fetch(folder))
        self._states.add(folder)

    def on_trial_start(self, params: dict[str, Any]) -> None:
        """Open a trial in the ledger."""
        self.ledger.start_trial(self._config_of(params))

    def on_stop(self, params: dict[str, Any], stop: Stop) -> None:
        """Say which trial is stopped and why, and leave a mark that outlives the driver."""
        assert self.sweep.early_stopping is not None
        key = trial_key(self._config_of(params))
        told = json.dumps({"trial": key, "params": params, **stop._asdict()})
        self.mirror.place.write_text(stop_mark(key), told + "\n")
        tqdm.write(
            f"Stopped: trial {key} with {params} is number {stop.place} of the {stop.trials} that "
            f"have come to {stop.effort:g} {self.sweep.early_stopping.effort}; {stop.kept} go on."
        )

    def on_trial_end(
        self, params: dict[str, Any], error: Path | None, infeasible: str = ""
    ) -> None:
        """Close a trial in the ledger; move the progress bar on; keep and show what failed.

        A trial that found no point within its budgets has not failed: it says so.
        """
        self._bar.update()
        told = None if error is None else _text_of(error)
        self.ledger.end_trial(self._config_of(params), told, infeasible)
        if infeasible:
            tqdm.write(f"The trial with {params} found no feasible point: {infeasible}")
        if error is not None:
            self._fail(f"The trial with {params} failed: see {error}")

    def _config_of(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return all that a trial's result depends on."""
        return trial_config(self.sweep, self.sweep.method, params, self.prepared.key)

    def _has_ended(self, result: tune.Result) -> bool:
        """Whether a trial ran to its end, was stopped, or failed for good."""
        if result.error is not None or (result.metrics or {}).get(ENDED):
            return True
        return self.mirror.place.holds(stop_mark(trial_key(self._config_of(result.config or {}))))

    def _fail(self, failure: str) -> None:
        """Keep and show what failed; the sweep goes on."""
        self.failures.append(failure)
        tqdm.write(failure)

    def _fetch(self, folder: str) -> Path:
        """Return the driver's copy of a point, without what only its trial goes on from."""
        return self.mirror.fetch(folder, without=(STATE,))

    def _prove(self, folders: list[Path], split: HeldOut, inputs: SweepInputs) -> list[Path]:
        """Hold points against their controls: do their decisions depend on the image?"""
        fixed = self.ledger.fixed_folders()
        running = {
            folder: self._start(
                prove_point, folder, fixed, split=split, sweep=self.sweep, data=inputs.data
            )
            for folder in folders
        }
        ended = self._ended(running, f"Controls, {split}, of {{}}")
        done = [folder for folder, task in ended if task.error is None]
        for folder in done:
            self._fetch(str(self.mirror.place_of(folder).path))
            self.ledger.add_proof(folder, split)
        return done

    def _measure_on_test(self, inputs: SweepInputs) -> list[Path]:
        """Measure the front, and the dense network, on the test split; return what was measured."""
        running = {
            folder: self._start(measure_on_test, folder, sweep=self.sweep, data=inputs.data)
            for folder in self.ledger.test_candidates()
        }
        ended = self._ended(running, "Test split, of {}")
        done = [folder for folder, task in ended if task.error is None]
        for folder in done:
            self._fetch(str(self.mirror.place_of(folder).path))
            self.ledger.add_test(folder)
        return done

    def _time(self, inputs: SweepInputs) -> None:
        """Time the points that are reported, once nothing else of the sweep runs."""
        folders = self.ledger.timing_candidates(self.sweep.timing.points)
        if not folders:
            return
        dense, options = self.ledger.dense_folder(), timing_options(self.sweep)
        running = {
            folder: self._start(
                time_point, folder, dense, options=options, sweep=self.sweep, data=inputs.data
            )
            for folder in folders
        }
        for folder, ended in self._ended(running, "Timing, of {}"):
            if ended.error is None:
                self.ledger.add_timings(folder, ended.result)

    def _start(
        self,
        work: Callable[..., Any],
        *folders: Path | list[Path] | None,
        options: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> "ray.ObjectRef[Any]":
        """Start a task on points, whose folders here are copies of what it writes to.

        Args:
            work: takes the folders first.
            folders: of points, lists of them, or None.
            options: what the task asks Ray for; None asks for what controls do.
            others: what else it takes, by name.
        """
        places = [self._places_of(each) for each in folders]
        asked = self.sweep.resources.control.options if options is None else options
        return ray.remote(**asked)(in_folders).remote(work, *places, **others)

    def _places_of(self, folders: Path | list[Path] | None) -> Place | list[Place] | None:
        if isinstance(folders, list):
            return [self.mirror.place_of(folder) for folder in folders]
        return None if folders is None else self.mirror.place_of(folders)

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


def _text_of(path: Path) -> str:
    """Return a file's text, or that it is not there: a lost node takes its files along."""
    try:
        return path.read_text()
    except OSError as error:
        return f"No traceback is left: {error}"
