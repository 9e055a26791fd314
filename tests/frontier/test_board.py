"""A frontier that grows: who is on it, what it covers, and when it is drawn anew."""

from pathlib import Path
from types import ModuleType

import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.proof import Controls, prove
from runtime_pruning.frontier.uncertainty import Evidence


@pytest.fixture
def board() -> Board:
    return Board(Reference())


def test_a_better_point_takes_another_off_the_front(board: Board, synthetic: ModuleType) -> None:
    assert board.on_front() == {}
    (worse, worse_record), (better, better_record) = (
        synthetic.make_point(0.5, skill=0.8),
        synthetic.make_point(0.49),
    )
    board.add(worse, Evidence.of(worse_record))
    assert board.on_front() == {worse.point_id: True}
    # Accuracy times what is left of 1.1 of the dense network's MACs.
    expected = worse.accuracy * (1.1 - worse.macs_fraction)
    assert board.hypervolume() == pytest.approx(expected)
    board.add(better, Evidence.of(better_record))
    assert board.on_front() == {worse.point_id: False, better.point_id: True}
    assert better.point_id in board
    assert board.points == [worse, better]


def test_a_point_that_comes_again_counts_once(board: Board, synthetic: ModuleType) -> None:
    for _ in range(2):
        point, record = synthetic.make_point(0.5)
        board.add(point, Evidence.of(record))
    assert len(board) == 1


def test_it_is_drawn_when_something_new_has_come(
    board: Board, synthetic: ModuleType, tmp_path: Path
) -> None:
    assert board.is_drawn  # nothing is missing from nothing
    with pytest.raises(DataError):
        board.draw(tmp_path)
    point, record = synthetic.make_point(0.5)
    board.add(point, Evidence.of(record))
    assert not board.is_drawn
    assert board.draw(tmp_path).summary.points == (point,)
    assert board.is_drawn
    board.add_proof(point.point_id, prove(record, Controls((record,), (record,), (record,))))
    assert not board.is_drawn
    assert "| static |" in board.draw(tmp_path).table.read_text().replace("**", "")
