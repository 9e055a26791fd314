"""A point's way from the worker to the tracker: what is computed on it, and what waits for what."""

import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from runtime_pruning import backbones, datasets
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.frontier.points import OperatingPoint, figures_of
from runtime_pruning.frontier.proof import prove
from runtime_pruning.frontier.records import AnswerKind, read_record
from runtime_pruning.methods import Effort
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.sweeping.config import ProofConfig, SweepConfig
from runtime_pruning.sweeping.ledger import Ledger
from runtime_pruning.sweeping.proving import measure_on_test, prove_point
from runtime_pruning.sweeping.trial import PointReport
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild, rebuild_proofs
from runtime_pruning.tracking.writer import EventWriter

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

SWEEP = SweepConfig(
    backbone="digits-cnn",
    dataset="digits",
    method="fixed-width",
    search={"groups": (2.0,)},
    align=4,
    held_out_limit=64,
    proof=ProofConfig(seeds=1, search_evaluations=1, calibration_batches=1, oracle_images=0),
)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return datasets.load("digits")


@pytest.fixture
def tracker(tmp_path: Path) -> FrontierTracker:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return FrontierTracker(uri, "frontier", "s1", tmp_path / "spool", report_dir=tmp_path)


def report_points(data: ImageDataset, folder: Path, widths: tuple[int, ...]) -> list[Path]:
    """Measure fixed widths as a trial does; return the points' folders."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    network = trace(backbone, (1, 8, 8), groups=2, align=4).eval()
    folders = []

    def emit(point: OperatingPoint, written: Path) -> None:
        folders.append(folder / f"point-{point.index}")
        shutil.copytree(written, folders[-1])

    report = PointReport(
        sweep=SWEEP,
        sweep_id="s1",
        method="fixed-width",
        config={"g": 2},
        data=data,
        emit=emit,
        code_version="test",
        reference_macs=dense_macs(network),
    )
    for width in widths:
        report(FixedPolicy(network.uniform(width)), network, Effort())
    return folders


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is derived, and which records are read, whoever does it."""
    calls: Counter[str] = Counter()

    def watch(function: Callable[..., Any], name_of: Callable[..., str]) -> None:
        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name_of(*args)] += 1
            return function(*args, **kwargs)

        for name, module in list(sys.modules.items()):
            if name.startswith("runtime_pruning"):
                for attribute, value in list(vars(module).items()):
                    if value is function:
                        monkeypatch.setattr(module, attribute, counting)

    watch(figures_of, lambda *_: "figures")
    watch(prove, lambda *_: "proof")
    watch(read_record, lambda path: path.name)
    return calls


def test_on_its_way_a_point_is_read_once_and_derived_once(
    data: ImageDataset, tracker: FrontierTracker, tmp_path: Path, found: Counter[str]
) -> None:
    ledger = Ledger(tracker, "fixed-width")
    tracker.start_sweep({})
    folders = report_points(data, tmp_path, (1, 2))
    for folder in folders:
        ledger.add(folder)
        ledger.add(folder)
    assert tracker.replay() == 0
    for folder in folders:  # what choosers of cascades learn on
        kept = read_record(folder / "record-policy.parquet")
        assert kept.split == "policy"
        assert kept.image_ids_N.tolist() == sorted(data.policy.ids_N[:64].tolist())
        assert kept.answers == AnswerKind(num_classes=10, content=data.content_hash())
    assert (tmp_path / "frontier.html").exists()
    assert found == {"figures": 2, "record.parquet": 2}  # two points

    found.clear()
    measure_on_test(folders[0], sweep=SWEEP, data=data)
    ledger.add_test(folders[0])
    assert tracker.replay() == 0
    assert found == {"figures": 1, "record-test.parquet": 1}

    found.clear()
    prove_point(folders[0], [], split="validation", sweep=SWEEP, data=data)
    ledger.add_proof(folders[0], "validation")
    assert tracker.finish() == 0
    several = ("fixed-", "threshold-")
    once = {name for name in found if not name.startswith(several)}
    assert once == {"shuffled-0.parquet", "random-0.parquet", "proof", "record.parquet"}
    assert {"fixed-0.parquet", "threshold-0.parquet"} <= set(found)
    assert set(found.values()) == {1}  # the record is what the controls are held against

    uri = tracker.uri
    assert len(rebuild(uri, "s1")) == 2
    assert len(rebuild_proofs(uri, "s1", "validation")) == 1
    assert "static" in ledger.table()
    runs = MlflowClient(uri).search_runs(["1"], "tags.`frontier.tested` = 'true'")
    assert "test_accuracy" in runs[0].data.metrics


def test_who_reports_a_point_does_not_wait_for_the_store(
    data: ImageDataset, tracker: FrontierTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, write = threading.Event(), EventWriter.write

    def slow(self: EventWriter, event: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert answers.wait(60)
        write(self, event)

    monkeypatch.setattr(EventWriter, "write", slow)
    ledger = Ledger(tracker, "fixed-width")
    for folder in report_points(data, tmp_path, (1, 2)):
        ledger.add(folder)  # the store has not answered yet
    ledger.end_trial({"g": 2})
    assert len(ledger) == 2
    answers.set()
    assert tracker.finish() == 0
    assert len(rebuild(tracker.uri, "s1")) == 2
