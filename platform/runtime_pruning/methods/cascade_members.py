"""Where a cascade's members come from, and what their facts are.

A source is one of:

* ``own``: the fixed widths of the trial's any-width network, batch norm calibrated for each;
* ``dense``: the network from before any-width training;
* ``controls``: the points of the sweep's controls, which are measured before its trials;
* the id of a finished sweep in the same MLflow store, its points read back;
* a backbone, in ``backbones``: by its name with its published weights, or a network of the zoo by
  the path of its file, such as ``zoo/resnet20-cifar10``.

Dimensions: M members.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file

from runtime_pruning import backbones, glossary
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.deploy.bundle import read_manifest, write_bundle
from runtime_pruning.deploy.cascade_bundle import CASCADE
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dominance import pareto_mask
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import Record, read_record
from runtime_pruning.methods.base import Effort, KnownPoint, Report, Sources, Task
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import recalibrate_batch_norm
from runtime_pruning.tracking.rebuild import download, load_record, point_runs, read_point
from runtime_pruning.tracking.storage import open_store

OWN, DENSE, CONTROLS = "own", "dense", "controls"
ALIGN = 8  # of a backbone whose widths nobody asks for


class Member(NamedTuple):
    """One that may be run: its name, its facts, and what making it has cost."""

    name: str
    point: KnownPoint
    effort: Effort


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Members that only the driver can find; all trials share them.

    Attributes:
        stored: of finished sweeps, their bundles copied to storage that all nodes see.
        networks: backbones by what they were asked for as, with what training them has cost.
    """

    stored: tuple[Member, ...]
    networks: tuple[tuple[str, str, PrunableNetwork, Effort], ...]


def find_elsewhere(
    members: Sequence[str], named: Sequence[str], sources: Sources
) -> Elsewhere | None:
    """Return the members that are of no sweep's own making, read and checked.

    Args:
        members: sources; those of the trial itself are passed over.
        named: backbones.
        sources: where to look.

    Raises:
        DataError: a sweep that is not there, of other data, or without answers; weights that are
            missing or damaged.
    """
    sweeps = [name for name in members if name not in (OWN, DENSE, CONTROLS)]
    stored = [member for sweep in sweeps for member in _of_sweep(sweep, sources)]
    return Elsewhere(
        stored=tuple(stored), networks=tuple(_network(name, sources) for name in named)
    )


def gather(
    task: Task, members: Sequence[str], calibration_batches: int, report: Report
) -> list[Member]:
    """Return all members that a task offers, cheapest first."""
    found: list[Member] = []
    if OWN in members:
        found += _own(task, calibration_batches, report)
    if DENSE in members:
        every = FixedPolicy(task.dense.uniform(task.dense.groups))
        found.append(Member(DENSE, report.measure(every, task.dense), task.dense_effort))
    if CONTROLS in members:
        found += _of_folders(task.control_points)
    if isinstance(task.shared, Elsewhere):
        found += task.shared.stored
        found += [_measured(*network, report) for network in task.shared.networks]
    return sorted(found, key=lambda member: _macs(member.point))


def chosen(found: Sequence[Member], most: int) -> list[Member]:
    """Return at most so many, of those that no other beats on the policy split, evenly by cost.

    Raises:
        DataError: there is none.
    """
    if not found:
        raise DataError("A cascade needs a member, but its sources hold none.")
    loss_MD = np.array(
        [[1 - each.point.policy.correct_N.mean(), _macs(each.point)] for each in found]
    )
    best = [each for each, stays in zip(found, pareto_mask(loss_MD), strict=True) if stays]
    if len(best) <= most:
        return best
    costs = np.log([_macs(each.point) for each in best])
    places = {int(np.abs(costs - at).argmin()) for at in np.linspace(costs[0], costs[-1], most)}
    return [best[place] for place in sorted(places)]


def _macs(point: KnownPoint) -> float:
    return float(point.policy.executed_macs_N.mean())


def _own(task: Task, calibration_batches: int, report: Report) -> Iterator[Member]:
    """Yield the fixed widths of the trial's network."""
    for groups in range(1, task.network.groups + 1):
        network = copy.deepcopy(task.network)
        policy = FixedPolicy(network.uniform(groups))
        recalibrate_batch_norm(network, task.data.training, policy, calibration_batches)
        name = f"{groups} of {network.groups} groups"
        yield Member(name, report.measure(policy, network), task.network_effort)


def _measured(
    name: str, backbone: str, network: PrunableNetwork, effort: Effort, report: Report
) -> Member:
    """Return a backbone at full width as a member."""
    policy = FixedPolicy(network.uniform(network.groups))
    bundled = partial(write_bundle, network=network, policy=policy, backbone=backbone, align=ALIGN)
    return Member(name, replace(report.measure(policy, network), write_bundle=bundled), effort)


def _of_folders(folders: Sequence[Path]) -> Iterator[Member]:
    """Yield the points in folders whose bundles are of networks."""
    for folder in folders:
        if read_manifest(folder / glossary.BUNDLE).get("kind") == CASCADE:
            continue
        point = OperatingPoint.from_json((folder / glossary.POINT).read_text())
        validation = read_record(folder / glossary.RECORD)
        policy = read_record(folder / glossary.POLICY_RECORD)
        yield _member(point, validation, policy, folder / glossary.BUNDLE)


def _member(point: OperatingPoint, validation: Record, policy: Record, bundle: Path) -> Member:
    """Return a point that was recorded as a member."""
    known = KnownPoint(
        validation=validation,
        policy=policy,
        groups=point.groups,
        write_bundle=partial(shutil.copytree, bundle, dirs_exist_ok=True),
        penalty=point.penalty,
        analytic_macs_per_image=point.macs_per_image,
    )
    effort = Effort(
        env_steps=point.env_steps, epochs=point.epochs, train_seconds=point.train_seconds
    )
    return Member(f"{point.sweep_id}/{point.point_id}", known, effort)


def _of_sweep(sweep_id: str, sources: Sources) -> list[Member]:
    """Return a finished sweep's points, those that others of it beat left out."""
    client, expected = open_store(sources.store), sources.data.content_hash()
    found: list[Member] = []
    for run in point_runs(client, sweep_id):
        validation, policy = (load_record(client, run, each) for each in ("validation", "policy"))
        _check_content(sweep_id, policy, sources.data, expected)
        bundle = sources.folder / "members" / run.info.run_id
        if not bundle.is_dir():
            partial_folder = bundle.with_suffix(".partial")
            partial_folder.mkdir(parents=True, exist_ok=True)
            download(client, run, glossary.BUNDLE, str(partial_folder))
            (partial_folder / glossary.BUNDLE).rename(bundle)
        if read_manifest(bundle).get("kind") != CASCADE:
            found.append(_member(read_point(client, run), validation, policy, bundle))
    if not found:
        raise DataError(f"Sweep {sweep_id!r} holds no point that can be a member.")
    return chosen(sorted(found, key=lambda each: _macs(each.point)), len(found))


def _check_content(sweep_id: str, record: Record, data: ImageDataset, expected: str) -> None:
    """Raise unless a record is of the sweep's own data."""
    if record.answers is None:
        raise DataError(
            f"Sweep {sweep_id!r} kept no answers: it is of an earlier version, and its points "
            "cannot be members."
        )
    if record.answers.content != expected:
        raise DataError(
            f"Members must be of the same data, {data.info.name!r} with content {expected[:12]}, "
            f"but sweep {sweep_id!r} is of content {record.answers.content[:12]}."
        )


def _network(name: str, sources: Sources) -> tuple[str, str, PrunableNetwork, Effort]:
    """Return a trained backbone: a network of the zoo, or one with its published weights."""
    info, effort = sources.data.info, Effort()
    backbone, weights = name, None
    if "/" in name or name.endswith(".safetensors"):
        backbone, weights, effort = _of_zoo(Path(name))
    made = backbones.create(
        backbone,
        num_classes=len(info.classes),
        image_shape=info.image_shape,
        weights_dir=sources.weights_dir,
        pretrained=weights is None,
    )
    if weights is not None:
        made.load_state_dict(load_file(weights))
    return name, backbone, trace(made.eval(), info.image_shape, groups=1, align=ALIGN), effort


def _of_zoo(path: Path) -> tuple[str, Path, Effort]:
    """Return backbone, weights and effort of a network of the zoo.

    Raises:
        DataError: it has not been trained, or its file is damaged.
    """
    weights, manifest = path.with_suffix(".safetensors"), path.with_suffix(".json")
    if not (weights.is_file() and manifest.is_file()):
        raise DataError(
            f"Member {str(path)!r} needs {weights} and {manifest}: train it by `runtime-pruning "
            f"train {path.with_suffix('.yaml')}`."
        )
    facts = json.loads(manifest.read_text())
    if hashlib.sha256(weights.read_bytes()).hexdigest() != facts["sha256"]:
        raise DataError(f"{weights} is damaged: its checksum is not the one in {manifest}.")
    effort = Effort(epochs=facts["epochs"], train_seconds=3600 * facts["hours"])
    return facts["backbone"], weights, effort
