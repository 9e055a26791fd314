"""What runs on a worker to prove that a point's decisions depend on the image, or that they do not.

Beside a point lies a folder for each split, ``dynamics`` and ``dynamics-test``:

    controls.json     the fixed plans and what they were chosen by, bounds of the groups
    fixed-<i>.parquet, shuffled-<seed>.parquet, random-<seed>.parquet
                      records of the controls, over all images of the point's own
    oracle.parquet    the cheapest right plans, over a sample of them
    decisions.png, gallery.png, dynamics.json
                      what the records say

What an interrupted run has written is kept: each file appears whole or not at all, the last one
last. Fixed plans are chosen on the policy split, once, and serve both splits.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from runtime_pruning.datasets import HeldOutSplit, ImageDataset
from runtime_pruning.deploy import AnyBundle, Bundle, CascadeBundle, read_bundle
from runtime_pruning.files import write_text
from runtime_pruning.frontier.dynamics import Dynamics
from runtime_pruning.frontier.explanation import explain, write_explanation
from runtime_pruning.frontier.points import OperatingPoint, derive
from runtime_pruning.frontier.proof import control_path
from runtime_pruning.frontier.records import HeldOut, Record, read_record, write_record
from runtime_pruning.glossary import (
    BUNDLE,
    CONTROLS_FILE,
    DYNAMICS,
    DYNAMICS_FILE,
    ORACLE,
    RECORD,
    TEST_DYNAMICS,
    TEST_POINT,
    TEST_RECORD,
)
from runtime_pruning.methods.controls import Groups, groups_of, scattered, shuffled
from runtime_pruning.methods.evaluation import measured
from runtime_pruning.methods.static_search import (
    FixedPlan,
    SearchBounds,
    best_fixed_plans,
    calibrated_for,
)
from runtime_pruning.methods.upper_bound import cheapest_right_plans
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy
from runtime_pruning.sweeping.cascade_controls import measure_cascade_controls
from runtime_pruning.sweeping.config import ProofConfig, SweepConfig
from runtime_pruning.sweeping.trial import limited, measure, read_point, record_of

RECORDS: dict[HeldOut, str] = {"validation": RECORD, "test": TEST_RECORD}
FOLDERS: dict[HeldOut, str] = {"validation": DYNAMICS, "test": TEST_DYNAMICS}


def measure_on_test(folder: Path, *, sweep: SweepConfig, data: ImageDataset) -> None:
    """Run a point's bundle on the test split; write record and figures beside the point's own."""
    if (folder / TEST_POINT).exists():
        return
    device = sweep.resources.control.use()
    bundle, images = read_bundle(folder / BUNDLE).to(device), limited(data.test, sweep)
    facts = measured(bundle.execute, images, bundle.device, batch_size=sweep.eval_batch)
    record = record_of(facts, images, content=data.content_hash())
    write_record(record, folder / TEST_RECORD)
    tested = derive(record, read_point(folder).provenance)
    write_text(folder / TEST_POINT, tested.to_json() + "\n")


def prove_point(
    folder: Path, dense: Path | None, *, split: HeldOut, sweep: SweepConfig, data: ImageDataset
) -> None:
    """Measure a point's controls on a split, and write what they show.

    Args:
        folder: the point's, with its record of the split.
        dense: the folder of the dense network's point, where there is one.
        split: the test split takes the fixed plans that served the validation split.
        sweep: that the point belongs to.
        data: the dataset's splits.
    """
    device = sweep.resources.control.use()
    target = folder / FOLDERS[split]
    if (target / DYNAMICS_FILE).exists():
        return
    subject = Subject(
        point=read_point(folder),
        record=read_record(folder / RECORDS[split]),
        bundle=read_bundle(folder / BUNDLE),
        data=data,
    )
    subject.bundle.to(device)
    if split == "test":
        target.mkdir(exist_ok=True)
        shutil.copyfile(folder / DYNAMICS / CONTROLS_FILE, target / CONTROLS_FILE)
    measure_controls(subject, target, sweep.proof, sweep.eval_batch)
    known = None if dense is None else read_record(dense / RECORDS[split])
    write_dynamics(subject.point, subject.record, known, data, target)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recorded point whose decisions are looked into.

    Attributes:
        point: on validation.
        record: of its policy on the split in question.
        bundle: the network and the policy, or the cascade.
        data: the dataset's splits.
    """

    point: OperatingPoint
    record: Record
    bundle: AnyBundle
    data: ImageDataset

    @property
    def network(self) -> PrunableNetwork:
        """Of the bundle of one."""
        assert isinstance(self.bundle, Bundle)
        return self.bundle.network

    @property
    def images(self) -> HeldOutSplit:
        """The images of the record, in the order of the split."""
        return images_of(self.record, self.data)

    def groups_of(self, split: HeldOutSplit) -> Groups:
        """Return the policy's plans for some of the record's images, in their order."""
        rows_N = np.searchsorted(self.record.image_ids_N, split.ids_N)
        return groups_of(self.network, self.record.channels_NL[rows_N])


def images_of(record: Record, data: ImageDataset) -> HeldOutSplit:
    """Return the images that a record speaks of, in the order of their split."""
    whole: HeldOutSplit = data.test if record.split == "test" else data.validation
    return whole.take(np.flatnonzero(np.isin(whole.ids_N, record.image_ids_N)))


def write_dynamics(
    point: OperatingPoint, record: Record, dense: Record | None, data: ImageDataset, folder: Path
) -> Dynamics:
    """Write numbers and pictures of what the records in a folder show, and return the numbers.

    Args:
        point: whose decisions.
        record: of its policy.
        dense: record of the dense network on the same images, where there is one.
        data: that the images come from.
        folder: with the records of the controls.
    """
    dynamics = explain(point, record, folder, dense, data.info.classes)
    write_explanation(dynamics, point, record, images_of(record, data), folder)
    return dynamics


def measure_controls(
    subject: Subject, folder: Path, settings: ProofConfig, eval_batch: int
) -> None:
    """Measure each control that has no record in the folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(subject.bundle, CascadeBundle):
        measure_cascade_controls(
            subject.bundle,
            subject.record,
            subject.images,
            subject.data,
            folder,
            settings,
            eval_batch=eval_batch,
            seed=subject.point.seed,
        )
        return
    network, split = subject.network, subject.images
    groups_NL = subject.groups_of(split)

    def run(permuted: Callable[..., Groups], seed: int) -> Record:
        return _run_plans(subject, permuted(groups_NL, seed=seed), split, eval_batch)

    for number, plan in enumerate(_search_fixed_plans(subject, folder, settings, groups_NL)):
        _keep(
            control_path(folder, "fixed", number),
            partial(_run_fixed, subject, plan, split, settings, eval_batch),
        )
    for seed in range(settings.seeds):
        _keep(control_path(folder, "shuffled", seed), partial(run, shuffled, seed))
        _keep(control_path(folder, "random", seed), partial(run, partial(scattered, network), seed))
    if settings.oracle_images:
        _keep(folder / ORACLE, partial(_run_oracle, subject, split, settings, eval_batch))


def _keep(path: Path, make: Callable[[], Record]) -> None:
    """Write a record that is not there yet."""
    if not path.exists():
        write_record(make(), path)


def _search_fixed_plans(
    subject: Subject, folder: Path, settings: ProofConfig, groups_NL: Groups
) -> list[FixedPlan]:
    """Return the fixed plans of a point, searched for once."""
    path = folder / CONTROLS_FILE
    if not path.exists():
        network = subject.network
        found = best_fixed_plans(
            network.plain,  # what is fixed need not look
            training=subject.data.training,
            policy_split=subject.data.policy,
            budget=float(subject.record.executed_macs_N.mean()),
            mean_groups=groups_NL.mean(axis=0).tolist()[: len(network.plain.sites)],
            bounds=SearchBounds(
                evaluations=settings.search_evaluations,
                images=settings.search_images,
                calibration_batches=settings.calibration_batches,
                seed=subject.point.seed,
            ),
        )
        facts = {
            "bounds": [list(site.bounds[1:]) for site in network.sites],
            "settings": asdict(settings),
            "fixed": [asdict(plan) for plan in found],
        }
        write_text(path, json.dumps(facts, indent=2) + "\n")
    plans = json.loads(path.read_text())["fixed"]
    return [FixedPlan(**{**plan, "groups": tuple(plan["groups"])}) for plan in plans]


def _run_plans(subject: Subject, plans_NL: Groups, split: HeldOutSplit, eval_batch: int) -> Record:
    """Return what plans do to the images of a split, on the network as the policy has it."""
    policy = PlanPolicy(torch.from_numpy(plans_NL))
    return measure(subject.network, policy, split, eval_batch)[0]


def _run_fixed(
    subject: Subject, plan: FixedPlan, split: HeldOutSplit, settings: ProofConfig, eval_batch: int
) -> Record:
    batches = settings.calibration_batches
    network = calibrated_for(subject.network.plain, plan, subject.data.training, batches)
    return measure(network, FixedPolicy(plan.groups), split, eval_batch)[0]


def _run_oracle(
    subject: Subject, split: HeldOutSplit, settings: ProofConfig, eval_batch: int
) -> Record:
    rng = np.random.default_rng(subject.point.seed)
    count = min(settings.oracle_images, len(split))
    sample = split.take(np.sort(rng.permutation(len(split))[:count]))
    plans_NL = cheapest_right_plans(
        subject.network, sample, subject.groups_of(sample), seed=subject.point.seed
    )
    return _run_plans(subject, plans_NL, sample, eval_batch)
