"""What a trial's report writes: of a policy that is measured, and of facts that are known."""

from pathlib import Path

import numpy as np
import pytest

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import load
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import read_record
from runtime_pruning.glossary import POLICY_RECORD, RECORD
from runtime_pruning.methods import Effort
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.sweeping.reports import read_point
from runtime_pruning.sweeping.trial import PointReport

Emitted = list[tuple[OperatingPoint, list[str]]]


@pytest.fixture
def network() -> PrunableNetwork:
    shape = (1, 8, 8)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=shape, seed=3)
    network: PrunableNetwork = trace(backbone, shape, groups=2, align=4)
    return network


def report_to(emitted: Emitted, folders: Path, reference_macs: int) -> PointReport:
    """Return a report that keeps what it emits."""

    def emit(point: OperatingPoint, folder: Path) -> None:
        emitted.append((point, sorted(path.name for path in folder.iterdir())))
        folder.rename(folders / str(point.index))
        folder.mkdir()  # its owner removes it

    sweep = SweepConfig(backbone="digits-cnn", dataset="digits", search={"groups": (2,)})
    return PointReport(
        sweep=sweep,
        sweep_id="s",
        method="m",
        config={},
        data=load("digits"),
        emit=emit,
        code_version="v",
        reference_macs=reference_macs,
    )


def test_known_facts_become_a_point_as_measured_ones_do(
    network: PrunableNetwork, tmp_path: Path
) -> None:
    emitted: Emitted = []
    report = report_to(emitted, tmp_path, 2 * dense_macs(network))
    policy, effort = FixedPolicy([2, 2, 2]), Effort(epochs=3)
    report(policy, network, effort)
    facts = report.measure(policy, network)
    report.known(facts, effort, save_state=lambda folder: folder.mkdir())
    (measured, files), (known, more) = emitted
    assert files == ["bundle", "point.json", "record-policy.parquet", "record.parquet"]
    assert more == [*files, "state"]
    assert (measured.index, known.index) == (0, 1)
    assert measured.figures == known.figures
    # Fractions are counted from the reference, not from the network that was measured.
    assert known.macs_fraction == pytest.approx(0.5)
    for index in "01":
        assert read_point(tmp_path / index).epochs == 3
        assert read_record(tmp_path / index / RECORD).split == "validation"
        assert read_record(tmp_path / index / POLICY_RECORD).split == "policy"
    one, other = (read_record(tmp_path / index / RECORD) for index in "01")
    np.testing.assert_array_equal(one.log_probabilities_NA, other.log_probabilities_NA)
