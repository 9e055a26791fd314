"""What runs on a worker to prove that a point's decisions depend on the image, or that they do not.

Beside a point lies a folder for each split, ``dynamics`` and ``dynamics-test``:

    controls.json     the fixed plans and what they were chosen by, bounds of the groups
    fixed-<i>.parquet, shuffled-<seed>.parquet, random-<seed>.parquet, threshold-<i>.parquet
                      records of the controls, over all images of the point's own; fixed are the
                      plans of controls.json, then the sweep's own fixed widths, dense ones too
    oracle.parquet    the cheapest right plans, over a sample of them
    decisions.png, gallery.png, dynamics.json
                      what the records say

What an interrupted run has written is kept: each file appears whole or not at all, the last one
last. Fixed plans are chosen on the policy split, once, and serve both splits; so are thresholds.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from runtime_pruning import methods
from runtime_pruning.cascades import ThresholdChooser
from runtime_pruning.datasets import HeldOutSplit, ImageDataset, PolicySplit
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
    POLICY_RECORD,
    RECORD,
    TEST_DYNAMICS,
    TEST_POINT,
    TEST_RECORD,
)
from runtime_pruning.methods.controls import Groups, groups_of, scattered, shuffled
from runtime_pruning.methods.evaluation import measured
from runtime_pruning.methods.recording import measure, record_of
from runtime_pruning.methods.static_search import (
    FixedPlan,
    Plan,
    SearchBounds,
    best_fixed_plans,
    calibrated_for,
)
from runtime_pruning.methods.threshold_control import threshold_records
from runtime_pruning.methods.upper_bound import cheapest_right_plans
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy
from runtime_pruning.sweeping.cascade_controls import measure_cascade_controls, member_records
from runtime_pruning.sweeping.checks import CALIBRATION
from runtime_pruning.sweeping.config import ProofConfig, SweepConfig
from runtime_pruning.sweeping.reports import read_point
from runtime_pruning.sweeping.trial import limited

RECORDS: dict[HeldOut, str] = {"validation": RECORD, "test": TEST_RECORD}
FOLDERS: dict[HeldOut, str] = {"validation": DYNAMICS, "test": TEST_DYNAMICS}
FIXED_WIDTH = "fixed-width"


def is_tested(folder: Path) -> bool:
    """Whether the test split was read for the point of a folder."""
    return (folder / TEST_POINT).exists()


def measure_on_test(folder: Path, *, sweep: SweepConfig, data: ImageDataset) -> None:
    """Run a point's bundle on the test split; write record and figures beside the point's own."""
    if is_tested(folder):
        return
    device = sweep.resources.control.use()
    bundle, images = read_bundle(folder / BUNDLE).to(device), limited(data.test, sweep)
    facts = measured(bundle.execute, images, bundle.device, batch_size=sweep.eval_batch)
    record = record_of(facts, images, content=data.content_hash())
    write_record(record, folder / TEST_RECORD)
    tested = derive(record, read_point(folder).provenance)
    write_text(folder / TEST_POINT, tested.to_json() + "\n")


class FixedRecords(NamedTuple):
    """What a sweep knows of its own fixed plans, on the images that a point was measured on.

    Attributes:
        widths: of the uniform widths, cheapest first.
        learned: of the same on the policy split.
        dense: of the unpruned network, where it was measured.
    """

    widths: tuple[Record, ...] = ()
    learned: tuple[Record, ...] = ()
    dense: Record | None = None

    @classmethod
    def read(cls, folders: Sequence[Path], split: HeldOut) -> "FixedRecords":
        """Return what the folders of a sweep's fixed points hold of a split."""
        known = [(read_point(each), each) for each in folders if (each / RECORDS[split]).exists()]
        known.sort(key=lambda pair: pair[0].macs_fraction)
        widths = [each for point, each in known if point.method == FIXED_WIDTH]
        dense = [each for point, each in known if point.method != FIXED_WIDTH]
        return cls(
            tuple(read_record(each / RECORDS[split]) for each in widths),
            tuple(read_record(each / POLICY_RECORD) for each in widths),
            read_record(dense[0] / RECORDS[split]) if dense else None,
        )


def prove_point(
    folder: Path,
    fixed: Sequence[Path],
    *,
    split: HeldOut,
    sweep: SweepConfig,
    data: ImageDataset,
) -> None:
    """Measure a point's controls on a split, and write what they show.

    Args:
        folder: the point's, with its record of the split.
        fixed: folders of the sweep's fixed points: of the uniform widths and the dense network.
        split: the test split takes the fixed plans that served the validation split.
        sweep: that the point belongs to.
        data: the dataset's splits.
    """
    device = sweep.resources.control.use()
    target = folder / FOLDERS[split]
    if (target / DYNAMICS_FILE).exists():
        return
    known = FixedRecords.read(fixed, split)
    subject = Subject(
        point=read_point(folder),
        record=read_record(folder / RECORDS[split]),
        bundle=read_bundle(folder / BUNDLE),
        data=data,
        fixed=known,
    )
    subject.bundle.to(device)
    if split == "test":
        target.mkdir(exist_ok=True)
        shutil.copyfile(folder / DYNAMICS / CONTROLS_FILE, target / CONTROLS_FILE)
    measure_controls(subject, target, sweep.proof, sweep.eval_batch)
    write_dynamics(subject.point, subject.record, known.dense, data, target)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recorded point whose decisions are looked into.

    Attributes:
        point: on validation.
        record: of its policy on the split in question.
        bundle: the network and the policy, or the cascade.
        data: the dataset's splits.
        fixed: what is known of fixed plans on the same images.
    """

    point: OperatingPoint
    record: Record
    bundle: AnyBundle
    data: ImageDataset
    fixed: FixedRecords = field(default_factory=FixedRecords)

    @property
    def network(self) -> PrunableNetwork:
        """Of the bundle of one."""
        assert isinstance(self.bundle, Bundle)
        return self.bundle.network

    @property
    def images(self) -> HeldOutSplit:
        """The images of the record, in the order of the split."""
        return images_of(self.record, self.data)

    @property
    def is_threshold(self) -> bool:
        """Whether its policy is a threshold itself."""
        bundle = self.bundle
        return isinstance(bundle, CascadeBundle) and isinstance(bundle.chooser, ThresholdChooser)

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
    else:
        _measure_plans(subject, folder, settings, eval_batch)
    _keep_known(subject, folder, eval_batch)


def _measure_plans(subject: Subject, folder: Path, settings: ProofConfig, eval_batch: int) -> None:
    """Measure the controls of a policy on one network."""
    network, split = subject.network, subject.images
    groups_NL = subject.groups_of(split)

    def run(permuted: Callable[..., Groups], seed: int) -> Record:
        return _run_plans(subject, permuted(groups_NL, seed=seed), split, eval_batch)

    plans = _search_fixed_plans(subject, folder, settings, groups_NL)
    for number, plan in enumerate(plans):
        _keep(
            control_path(folder, "fixed", number),
            partial(_run_fixed, subject, plan, split, settings, eval_batch),
        )
    for seed in range(settings.seeds):
        _keep(control_path(folder, "shuffled", seed), partial(run, shuffled, seed))
        _keep(control_path(folder, "random", seed), partial(run, partial(scattered, network), seed))
    if settings.oracle_images:
        _keep(folder / ORACLE, partial(_run_oracle, subject, split, settings, eval_batch))


def _keep_known(subject: Subject, folder: Path, eval_batch: int) -> None:
    """Write the records of the sweep's own fixed points, and of thresholds on their answers."""
    known = _with_widths(subject, subject.images, eval_batch)
    first = len(json.loads((folder / CONTROLS_FILE).read_text())["fixed"])
    others = [*known.widths, *([] if known.dense is None else [known.dense])]
    for number, record in enumerate(others, start=first):
        _keep(control_path(folder, "fixed", number), partial(_itself, record))
    if not subject.is_threshold:
        _keep_thresholds(subject, known, folder)


def _itself(record: Record) -> Record:
    """Return a record that needs no making."""
    return record


def _keep(path: Path, make: Callable[[], Record]) -> None:
    """Write a record that is not there yet."""
    if not path.exists():
        write_record(make(), path)


def _with_widths(subject: Subject, split: HeldOutSplit, eval_batch: int) -> FixedRecords:
    """Return the sweep's fixed points; without them, members or widths on the policy's weights."""
    if subject.fixed.widths:
        return subject.fixed
    if isinstance(subject.bundle, CascadeBundle):
        return subject.fixed._replace(
            widths=tuple(member_records(subject.bundle, split, subject.data, eval_batch)),
            learned=tuple(
                member_records(subject.bundle, subject.data.policy, subject.data, eval_batch)
            ),
        )
    network, content = subject.network, subject.data.content_hash()

    def run(images: HeldOutSplit | PolicySplit) -> tuple[Record, ...]:
        policies = [FixedPolicy(network.uniform(g)) for g in range(1, network.groups + 1)]
        return tuple(measure(network, p, images, eval_batch, content=content)[0] for p in policies)

    return subject.fixed._replace(widths=run(split), learned=run(subject.data.policy))


def _keep_thresholds(subject: Subject, known: FixedRecords, folder: Path) -> None:
    """Write the records of cascades by a threshold; the first, last: then all are there."""
    if control_path(folder, "threshold", 0).exists():
        return
    budget = float(subject.record.executed_macs_N.mean())
    found = threshold_records(known.learned, known.widths, budget)
    for number, record in reversed([*enumerate(found)]):
        write_record(record, control_path(folder, "threshold", number))


def _calibration_batches(subject: Subject, settings: ProofConfig) -> int:
    """Return over how many batches a fixed plan's statistics are taken: as the policy's were."""
    if settings.calibration_batches is not None:
        return settings.calibration_batches
    own = subject.point.config.get(CALIBRATION)
    if own is None:
        own = getattr(methods.get(subject.point.method).config_type, CALIBRATION, None)
    return int(methods.CalibratedConfig.calibration_batches if own is None else own)


def _commonest(groups_NL: Groups) -> Plan:
    """Return the plan that most images get."""
    plans_PL, count_P = np.unique(groups_NL, axis=0, return_counts=True)
    return tuple(plans_PL[count_P.argmax()].tolist())


def _search_fixed_plans(
    subject: Subject, folder: Path, settings: ProofConfig, groups_NL: Groups
) -> list[FixedPlan]:
    """Return the fixed plans of a point, searched for once."""
    path = folder / CONTROLS_FILE
    if not path.exists():
        network = subject.network
        batches = _calibration_batches(subject, settings)
        found = best_fixed_plans(
            network,
            training=subject.data.training,
            policy_split=subject.data.policy,
            budget=float(subject.record.executed_macs_N.mean()),
            mean_groups=groups_NL.mean(axis=0).tolist(),
            bounds=SearchBounds(
                evaluations=settings.search_evaluations,
                images=settings.search_images,
                calibration_batches=batches,
                seed=subject.point.seed,
            ),
            own=_commonest(groups_NL),
        )
        facts = {
            "bounds": [list(site.bounds[1:]) for site in network.sites],
            "settings": {**asdict(settings), CALIBRATION: batches},
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
    batches = _calibration_batches(subject, settings)
    network = calibrated_for(subject.network, plan, subject.data.training, batches)
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
