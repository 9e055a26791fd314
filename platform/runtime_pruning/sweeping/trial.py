"""What runs on a worker: one trial of the sweep, or one control, point by point.

A point is a folder that is complete before anyone hears of it:

    point.json       provenance and figures
    record.parquet   one row per validation image, its answer with it
    record-policy.parquet   the same of the policy split: what choosers of cascades learn on
    curves.json      what training read of itself since the point before, where it did
    bundle/          the network and the policy, ready to run
    state/           what the method needs to go on from here, where it can
"""

import copy
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from tqdm import tqdm

from runtime_pruning import methods
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.curves import Curves
from runtime_pruning.datasets import HeldOutSplit, ImageDataset, PolicySplit, Split
from runtime_pruning.deploy import write_bundle
from runtime_pruning.files import write_text
from runtime_pruning.frontier.points import OperatingPoint, Provenance, derive, trial_key
from runtime_pruning.frontier.records import Record, write_record
from runtime_pruning.glossary import (
    BUNDLE,
    CURVES,
    POINT,
    POLICY_RECORD,
    RECORD,
    TEST_POINT,
)
from runtime_pruning.methods import Effort, KnownPoint, Task
from runtime_pruning.methods.recording import measure
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import Policy
from runtime_pruning.places import Place
from runtime_pruning.sweeping.checks import control_config, method_config
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.objectives import directions, latency_of
from runtime_pruning.sweeping.reports import (
    ENDED,
    INFEASIBLE,
    STATE,
    Reported,
    last_point,
    metrics_of,
    read_point,
    stop_mark,
)

_SEND_SECONDS = 30.0  # between looks at what a trial keeps, where that goes to an object store

Emit = Callable[[OperatingPoint, Path], None]


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """What all trials of a sweep start from, by reference into Ray's object store.

    Attributes:
        data: an `ImageDataset`; a node holds it once, whatever number of workers reads it.
        network, dense: the prepared network and its dense original.
        prepared_key: hash of what made them; part of every trial's identity.
        network_effort, dense_effort: what making them has cost.
        code_version: of the driver; workers got the code from it, without its repository.
        place: of the sweep, which all nodes see.
        shared: what the swept method's `Method.prepare` returned.
        control_points: of the controls' points, once there are any.
    """

    data: Any
    network: Any
    dense: Any
    prepared_key: str
    network_effort: Effort
    dense_effort: Effort
    code_version: str
    place: Place
    shared: Any = None
    control_points: tuple[Place, ...] = ()


@dataclass(kw_only=True)
class PointReport:
    """Measures policies and hands finished point folders on: the `Report` of one trial.

    Fractions of MACs are counted from ``reference_macs``, those of the sweep's dense backbone.
    """

    sweep: SweepConfig
    sweep_id: str
    method: str
    config: dict[str, Any]
    data: ImageDataset
    emit: Emit
    code_version: str
    reference_macs: int
    curves: Curves = field(default_factory=Curves)
    index: int = 0
    missing: list[str] = field(default_factory=list)

    def __call__(
        self,
        policy: Policy,
        network: PrunableNetwork,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Measure on validation and policy split, write the point's folder, hand it on."""
        self.known(self.measure(policy, network), effort, save_state=save_state)

    def measure(self, policy: Policy, network: PrunableNetwork) -> KnownPoint:
        """Return what a policy does to the images of the validation and the policy split."""
        validation, analytic_macs = self._measure(network, policy, self.data.validation)
        learned_from, _ = self._measure(network, policy, self.data.policy)
        bundled = partial(
            write_bundle,
            network=network,
            policy=policy,
            backbone=self.sweep.backbone,
            align=self.sweep.align,
        )
        return KnownPoint(
            validation=validation,
            policy=learned_from,
            groups=network.groups,
            write_bundle=bundled,
            penalty=getattr(policy, "penalty", None),
            analytic_macs_per_image=analytic_macs,
        )

    def known(
        self,
        point: KnownPoint,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the folder of a point whose facts are known, and hand it on."""
        derived = derive(
            point.validation,
            self._provenance(point, effort),
            analytic_macs_per_image=point.analytic_macs_per_image,
        )
        with tempfile.TemporaryDirectory(prefix="point-") as name:
            folder = Path(name)
            write_record(point.validation, folder / RECORD)
            write_record(point.policy, folder / POLICY_RECORD)
            write_text(folder / POINT, derived.to_json() + "\n")
            point.write_bundle(folder / BUNDLE)
            if series := self.curves.take():
                write_text(folder / CURVES, json.dumps(series) + "\n")
            if save_state is not None:
                save_state(folder / STATE)
            self.emit(derived, folder)
        self.index += 1

    def infeasible(self, reason: str) -> None:
        """Keep why a point that was asked for does not exist, and say so."""
        self.missing.append(reason)
        tqdm.write(f"{self.method}: no feasible point. {reason}")

    def _measure(
        self, network: PrunableNetwork, policy: Policy, split: HeldOutSplit | PolicySplit
    ) -> tuple[Record, float]:
        """Return the record of a policy on a split, answers kept, and its mean analytic MACs."""
        images, batch = limited(split, self.sweep), self.sweep.eval_batch
        return measure(network, policy, images, batch, content=self.data.content_hash())

    def _provenance(self, point: KnownPoint, effort: Effort) -> Provenance:
        return Provenance(
            sweep_id=self.sweep_id,
            config=self.config,
            index=self.index,
            method=self.method,
            backbone=self.sweep.backbone,
            dataset=self.sweep.dataset,
            seed=int(self.config.get("seed", self.sweep.seed)),
            groups=point.groups,
            dense_macs=self.reference_macs,
            penalty=point.penalty,
            code_version=self.code_version,
            env_steps=effort.env_steps,
            train_seconds=effort.train_seconds,
            epochs=effort.epochs,
            saw_held_out=self.sweep.prepare.pretrained or _names_published(self.config),
        )


MeasuredSplit = TypeVar("MeasuredSplit", bound=Split)


def _names_published(config: Mapping[str, Any]) -> bool:
    """Whether a cascade has members with published weights: backbones that are no file's."""
    return any("/" not in str(name) for name in config.get("backbones", ()))


def limited(split: MeasuredSplit, sweep: SweepConfig) -> MeasuredSplit:
    """Return the images of a split that the sweep measures on."""
    return split if sweep.held_out_limit is None else split.head(sweep.held_out_limit)


def read_test_point(folder: Path) -> OperatingPoint:
    """Return what the point of a folder amounts to on the test split."""
    return OperatingPoint.from_json((folder / TEST_POINT).read_text())


def trial_config(
    sweep: SweepConfig, method: str, params: Mapping[str, Any], key: str
) -> dict[str, Any]:
    """Return all that a trial's result depends on; its hash is the trial's identity."""
    settings = sweep.settings
    if method != sweep.method:
        known = {field.name for field in fields(methods.get(method).config_type)}
        settings = {name: value for name, value in settings.items() if name in known}
    return {"method": method, **settings, "seed": sweep.seed, **params, "prepared": key}


def run_trial(
    params: dict[str, Any], *, sweep: SweepConfig, sweep_id: str, inputs: SweepInputs
) -> None:
    """Run one trial that Tune started, from its last point if it has been interrupted."""
    # Takes a CPU-second to import, which the processes of controls and proofs need not.
    from ray import tune

    device = sweep.resources.trial.use()

    method = methods.get(sweep.method)
    per_stage = method().points_per_stage(method_config(sweep, method, params))
    reported: dict[str, Any] = {}

    def heard(point: OperatingPoint, folder: Path) -> dict[str, Any]:
        costs = latency_of(folder, sweep, partial(ray.get, inputs.data))
        return {**metrics_of(point, per_stage), **costs}

    def emit(point: OperatingPoint, folder: Path) -> None:
        reported.update(heard(point, folder))
        tune.report(dict(reported), checkpoint=tune.Checkpoint.from_directory(str(folder)))

    key = trial_key(trial_config(sweep, sweep.method, params, inputs.prepared_key))
    with last_point(tune.get_checkpoint()) as last:
        if last is not None:
            reported.update(heard(last.point, last.folder))
        missing: list[str] = []
        if not inputs.place.holds(stop_mark(key)):
            missing = _fit(sweep.method, params, sweep, sweep_id, inputs, emit, last, device)
    # A trial without a point has objectives that are no numbers: Tune wants them, Optuna does not.
    nothing = dict.fromkeys(directions(sweep), math.nan)
    # Tune's own mark of a trial's end does not outlive the driver.
    tune.report({**nothing, **reported, ENDED: True, INFEASIBLE: "\n".join(missing)})


def run_control(
    name: str, groups: int, folder: Path, *, sweep: SweepConfig, sweep_id: str, inputs: SweepInputs
) -> list[str]:
    """Run one control at one group count; return the names of its points under ``folder``.

    Points that an interrupted run has completed are kept.
    """
    device = sweep.resources.control.use()
    done = sorted(folder.glob("point-*"))

    def emit(point: OperatingPoint, written: Path) -> None:
        partial = folder / f".point-{point.index:03d}"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(written, partial)
        partial.rename(folder / f"point-{point.index:03d}")

    folder.mkdir(parents=True, exist_ok=True)
    last = Reported(done[-1], read_point(done[-1])) if done else None
    _fit(name, {"groups": groups}, sweep, sweep_id, inputs, emit, last, device)
    return sorted(path.name for path in folder.glob("point-*"))


def _shared(inputs: SweepInputs) -> Any:
    """Return what the swept method shares between its trials, if it prepared anything."""
    return None if inputs.shared is None else ray.get(inputs.shared)


def _fit(
    name: str,
    params: dict[str, Any],
    sweep: SweepConfig,
    sweep_id: str,
    inputs: SweepInputs,
    emit: Emit,
    last: "Reported | None",
    device: str,
) -> list[str]:
    """Give a method its task; return why points are missing.

    ``last`` is the last point that is recorded.
    """
    method = methods.get(name)
    swept = name == sweep.method
    config = method_config(sweep, method, params) if swept else control_config(sweep, method)
    data: ImageDataset = ray.get(inputs.data)
    done = 0 if last is None else last.point.index + 1

    def own(reference: Any) -> PrunableNetwork:
        network: PrunableNetwork = copy.deepcopy(ray.get(reference))
        return network.to(device).regroup(int(params["groups"]), sweep.align)

    identity = trial_config(sweep, name, params, inputs.prepared_key)
    task = Task(
        network=own(inputs.network),
        dense=own(inputs.dense),
        data=data,
        data_ref=inputs.data,
        seed=identity["seed"],
        pad=sweep.prepare.pad,
        flip=sweep.prepare.flip,
        resources=sweep.resources.agent,
        points_done=done,
        resume=None if last is None else last.state,
        network_effort=inputs.network_effort,
        dense_effort=inputs.dense_effort,
        backbone=sweep.backbone,
        shared=_shared(inputs) if name == sweep.method else None,
    )
    report = PointReport(
        sweep=sweep,
        sweep_id=sweep_id,
        method=name,
        config=identity,
        data=data,
        emit=emit,
        code_version=inputs.code_version,
        reference_macs=dense_macs(task.dense),
        curves=task.curves,
        index=done,
    )
    work = inputs.place / f"work/{trial_key(identity)}"
    with ExitStack() as opened:
        folder = opened.enter_context(work.opened(every_s=_SEND_SECONDS))
        controls = [
            opened.enter_context(each.opened(sends=False)) for each in inputs.control_points
        ]
        task = replace(task, work=folder, control_points=tuple(controls))
        method().fit(task, config, report)
    (inputs.place / "work").delete(trial_key(identity))
    return report.missing
