"""The verdict: who knows the answer is dynamic, who ignores the image is static."""

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.deploy import Bundle
from runtime_pruning.frontier import Provenance, Record, derive
from runtime_pruning.frontier.dynamics import Dynamics
from runtime_pruning.frontier.explanation import explain
from runtime_pruning.frontier.proof import Controls, prove
from runtime_pruning.frontier.records import read_record
from runtime_pruning.methods.recording import measure
from runtime_pruning.network.policies import (
    FixedPolicy,
    PlanPolicy,
    RandomPolicy,
)
from runtime_pruning.sweeping.config import ProofConfig
from runtime_pruning.sweeping.proving import (
    FixedRecords,
    Subject,
    measure_controls,
    write_dynamics,
)


@pytest.fixture(scope="module")
def puzzle() -> ModuleType:
    path = Path(__file__).parents[1] / "methods" / "puzzle.py"
    spec = importlib.util.spec_from_file_location("puzzle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(**changes: Any) -> ProofConfig:
    usual = {"seeds": 2, "search_evaluations": 4, "calibration_batches": 0, "oracle_images": 50}
    return ProofConfig(**{**usual, **changes})


def subject(puzzle: ModuleType, policy: Any, split: str = "validation") -> Subject:
    network, data = puzzle.network(), puzzle.data()
    content = data.content_hash()
    record, _ = measure(network, policy, getattr(data, split), 64, content=content)
    provenance = Provenance(
        sweep_id="s1",
        config={"method": "rnp"},
        index=0,
        method="rnp",
        backbone="puzzle",
        dataset="puzzle",
        seed=0,
        groups=2,
        dense_macs=dense_macs(network),
    )
    validated = (
        record if split == "validation" else measure(network, policy, data.validation, 64)[0]
    )
    bundle = Bundle(network=network, policy=policy, manifest={})
    point = derive(validated, provenance)
    return Subject(point=point, record=record, bundle=bundle, data=data)


def proved(case: Subject, folder: Path, **changes: Any) -> Dynamics:
    measure_controls(case, folder, settings(**changes), 64)
    return explain(case.point, case.record, folder, dense_of(case), case.data.info.classes)


def dense_of(case: Subject) -> Record:
    return measure(case.bundle.network, FixedPolicy([2]), case.images, 64)[0]


def test_a_policy_that_knows_the_answer_is_dynamic(puzzle: ModuleType, tmp_path: Path) -> None:
    dynamics = proved(subject(puzzle, puzzle.Knowing()), tmp_path)
    assert dynamics.proof.verdict == "dynamic"
    fixed, shuffled_gain = dynamics.proof.fixed, dynamics.proof.shuffled
    # Half of the images get two groups. The mixture gives a share w of them two groups, at equal
    # cost w = 1/2 + 3/14, decision network included; a quarter of the images need two.
    dearer = 1 / 2 + puzzle.POLICY_MACS / (puzzle.MACS[2] - puzzle.MACS[1])
    assert fixed.accuracy == pytest.approx(0.75 + 0.25 * dearer)
    assert fixed.value == pytest.approx(0.25 * (1 - dearer))
    assert fixed.macs_per_image == pytest.approx(case_macs(dynamics))
    # Shuffled, a hard image with the answer "yes" has two groups half of the time.
    assert shuffled_gain.value == pytest.approx(0.125, abs=0.04)
    assert shuffled_gain.low > 0.06
    assert shuffled_gain.macs_per_image == case_macs(dynamics) - puzzle.POLICY_MACS
    # With one site, keeping its histogram is shuffling.
    assert dynamics.proof.random.value == pytest.approx(0.125, abs=0.04)
    assert dynamics.decisions.distinct_plans == 2
    assert dynamics.decisions.plan_entropy == pytest.approx(1.0)
    # Hard images are those whose dense loss says nothing: the loss is the same for all.
    assert dynamics.decisions.information["plan_class"] == pytest.approx(0.0, abs=0.02)
    bound = dynamics.upper_bound
    assert bound is not None
    assert (bound.images, bound.accuracy, bound.policy_accuracy) == (50, 1.0, 1.0)
    assert bound.macs_per_image < bound.policy_macs_per_image


def case_macs(dynamics: Dynamics) -> float:
    """Mean MACs of the policy, off its slices."""
    parts = dynamics.decisions.by_class
    return sum(p.images * p.macs_per_image for p in parts) / sum(p.images for p in parts)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_constant_policy_gains_nothing_and_is_static(
    puzzle: ModuleType, tmp_path: Path, groups: int
) -> None:
    dynamics = proved(subject(puzzle, FixedPolicy([groups])), tmp_path)
    assert dynamics.proof.verdict == "static"
    for gain in (dynamics.proof.fixed, dynamics.proof.shuffled, dynamics.proof.random):
        assert gain.value == 0.0
        assert gain.low < 0 < gain.high
        assert gain.macs_per_image == puzzle.MACS[groups]
    assert dynamics.decisions.distinct_plans == 1
    assert dynamics.decisions.commonest_plan_share == 1.0
    assert list(dynamics.decisions.information.values()) == pytest.approx([0.0] * 4)


def test_chance_is_static(puzzle: ModuleType, tmp_path: Path) -> None:
    dynamics = proved(subject(puzzle, RandomPolicy(2, 1, seed=5)), tmp_path, seeds=4)
    assert dynamics.proof.verdict == "static"
    assert dynamics.proof.shuffled.low < 0 < dynamics.proof.shuffled.high


def test_everything_said_comes_from_the_records(puzzle: ModuleType, tmp_path: Path) -> None:
    case = subject(puzzle, puzzle.Knowing())
    measure_controls(case, tmp_path, settings(), 64)
    dynamics = write_dynamics(case.point, case.record, dense_of(case), case.data, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    controls = {f"{name}-{i}.parquet" for name in ("shuffled", "random") for i in (0, 1)}
    # Of the pair that the search found, the commonest plan, and the two uniform widths.
    controls |= {f"fixed-{i}.parquet" for i in range(5)}
    controls |= {path.name for path in tmp_path.glob("threshold-*.parquet")}
    derived = {"dynamics.json", "decisions.png", "gallery.png"}
    assert "threshold-0.parquet" in controls
    assert names == controls | derived | {"controls.json", "oracle.parquet"}
    assert asdict(prove(case.record, Controls.read(tmp_path))) == asdict(dynamics.proof)
    written = json.loads((tmp_path / "dynamics.json").read_text())
    assert written["verdict"] == "dynamic"
    assert written["proof"] == asdict(dynamics.proof)
    assert written["numbers"]["advantage_shuffled_low"] == dynamics.proof.shuffled.low
    for name in derived:
        (tmp_path / name).unlink()
    assert proved(case, tmp_path) == dynamics


def test_what_an_interrupted_run_has_written_is_kept(puzzle: ModuleType, tmp_path: Path) -> None:
    case = subject(puzzle, puzzle.Knowing())
    measure_controls(case, tmp_path, settings(), 64)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    lost = tmp_path / "shuffled-1.parquet"
    facts = read_record(lost)
    lost.unlink()
    measure_controls(case, tmp_path, settings(), 64)
    assert read_record(lost) == facts
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path != lost}
    assert after == {path: stamp for path, stamp in before.items() if path != lost}


def test_the_sweeps_own_fixed_points_are_controls_too(puzzle: ModuleType, tmp_path: Path) -> None:
    case = subject(puzzle, FixedPolicy([1]))
    # A stronger network of the same sweep, at the cost of the policy: nothing was found like it.
    labels_N = case.record.labels_N
    right = measured(case.record, labels_N)
    known = FixedRecords(widths=(case.record,), learned=(policy_record(case),), dense=right)
    proof = proved(replace(case, fixed=known), tmp_path).proof
    assert (proof.fixed.accuracy, proof.verdict) == (1.0, "static")
    assert proof.threshold is not None
    assert proof.threshold.value == 0  # of one width there is one cascade: itself


def measured(record: Record, predictions_N: np.ndarray) -> Record:
    """A record of the same images and cost with other predictions."""
    return Record.from_arrays(
        split=record.split,
        image_ids_N=record.image_ids_N,
        labels_N=record.labels_N,
        predictions_N=predictions_N,
        losses_N=record.losses_N,
        channels_NL=record.channels_NL.astype(np.int64),
        executed_macs_N=record.executed_macs_N,
    )


def policy_record(case: Subject) -> Record:
    network, content = case.bundle.network, case.data.content_hash()
    return measure(network, case.bundle.policy, case.data.policy, 64, content=content)[0]


def test_a_threshold_is_held_against_no_threshold(
    puzzle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = subject(puzzle, puzzle.Knowing())
    assert not case.is_threshold
    monkeypatch.setattr(Subject, "is_threshold", True)
    proof = proved(case, tmp_path).proof
    assert (proof.threshold, proof.verdict) == (None, "dynamic")


def test_fixed_plans_have_the_policys_calibration(puzzle: ModuleType, tmp_path: Path) -> None:
    case = subject(puzzle, puzzle.Knowing())
    case = replace(case, point=replace(case.point, config={"calibration_batches": 3}))
    measure_controls(case, tmp_path, settings(calibration_batches=None), 64)
    assert json.loads((tmp_path / "controls.json").read_text())["settings"] == {
        **asdict(settings()),
        "calibration_batches": 3,
    }


def test_the_test_split_gets_the_plans_that_the_policy_split_chose(
    puzzle: ModuleType, tmp_path: Path
) -> None:
    measure_controls(subject(puzzle, puzzle.Knowing()), tmp_path / "validation", settings(), 64)
    (tmp_path / "test").mkdir()
    chosen = tmp_path / "validation" / "controls.json"
    (tmp_path / "test" / "controls.json").write_bytes(chosen.read_bytes())
    case = subject(puzzle, puzzle.Knowing(), "test")
    dynamics = proved(case, tmp_path / "test")
    assert dynamics.split == "test"
    ids_N = Controls.read(tmp_path / "test").fixed[0].image_ids_N
    assert ids_N.tolist() == sorted(case.data.test.ids_N.tolist())
    assert (tmp_path / "test" / "controls.json").read_bytes() == chosen.read_bytes()


def test_plans_follow_their_images_whatever_the_order(puzzle: ModuleType) -> None:
    case = subject(puzzle, puzzle.Knowing())
    split = case.data.validation
    hard_N = split.images_NCHW[:, 2, 0, 0] > 0
    assert case.groups_of(split)[:, 0].tolist() == (1 + hard_N).tolist()
    again = split.take(np.arange(len(split))[::-1])
    assert case.groups_of(again)[:, 0].tolist() == (1 + hard_N)[::-1].tolist()
    assert isinstance(case.bundle.policy, puzzle.Knowing)
    assert not isinstance(case.bundle.policy, PlanPolicy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": -1}, "`points >= 0` must hold, but got -1."),
        ({"seeds": 0}, "`seeds >= 1` must hold, but got 0."),
        ({"oracle_images": -3}, "`oracle_images >= 0` must hold, but got -3."),
    ],
)
def test_faulty_settings_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProofConfig(**changes)
