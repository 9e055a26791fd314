"""Descriptions in MLflow: links, the front, what the numbers mean."""

from types import ModuleType

import pytest

from runtime_pruning import glossary
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.summary import summarise
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.tracking.notes import LONGEST, point_note, sweep_note, with_dynamics


@pytest.mark.parametrize("count", [12, 300])
def test_a_sweeps_note_fits(synthetic: ModuleType, count: int) -> None:
    shares = [0.2 + 0.7 * i / count for i in range(count)]
    made = [synthetic.make_point(share, penalty=share, images=400) for share in shares]
    summary = summarise(
        [point for point, _ in made],
        [Evidence.of(record) for _, record in made],
        reference=Reference(),
        replicates=10,
    )
    note = sweep_note(summary, "1", "abc", "s1")
    assert len(note) <= LONGEST
    page = "#/experiments/1/runs/abc/artifacts/frontier.html?workflowType=machine_learning"
    assert note.startswith(f"**[The frontier page]({page})**")
    assert f"| hypervolume | area | higher | {glossary.HYPERVOLUME.meaning} |" in note
    assert "runtime-pruning pick s1" in note


def test_a_points_note_links_what_it_has(synthetic: ModuleType) -> None:
    point, _ = synthetic.make_point(0.5)
    note = point_note(point, "1", "r", "s", {glossary.RECORD, glossary.POINT, "other"})
    assert "#/experiments/1/runs/r/artifacts/record.parquet?" in note
    assert "bundle" not in note
    assert f"runtime-pruning export {point.point_id}" in note
    assert f"{point.accuracy:.2%} of 500 validation images of cifar10" in note
    assert "| macs_fraction | of dense MACs | lower |" in note
    proved = with_dynamics(note, "1", "r", "dynamics")
    assert "#/experiments/1/runs/r/artifacts/dynamics/decisions.png?" in proved
    assert with_dynamics(proved, "1", "r", "dynamics") == proved  # writing twice is writing once
