"""Boards read from MLflow alone: of one sweep or several, once, or again while one runs."""

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.details import Details
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import derive, referred_to
from runtime_pruning.frontier.showing import Setting, Tested, Thumbnails
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.tracking import view
from runtime_pruning.tracking.rebuild import (
    load_proof,
    load_record,
    load_timings,
    point_runs,
    read_point,
    read_proof,
    timed_devices,
)
from runtime_pruning.tracking.storage import read_store


class BoardReader:
    """Puts the runs of points on a board; of a run that it knows it reads what is new.

    Args:
        client: of the store; may be replaced by a fresher one.
        board: that is filled.
        verify: derive figures and gains from the records anew, and raise where others are stored.
    """

    def __init__(self, client: MlflowClient, board: Board, *, verify: bool = False) -> None:
        self.client = client
        self._board = board
        self._verify = verify
        self._read: dict[str, set[str]] = {}

    def take(self, run: Run) -> str:
        """Take in the finished run of a point; return the point's id.

        Raises:
            DataError: a record is missing or unreadable, or gives other figures than are stored.
        """
        client, board, tags = self.client, self._board, run.data.tags
        point_id: str = tags[glossary.POINT_ID]
        known = self._read.setdefault(point_id, set())
        if point_id not in board:
            point, record = read_point(client, run), load_record(client, run, "validation")
            if self._verify:
                point.check_against(record)
            board.add(point, Evidence.of(record), Details.of(record))
        if "run" not in known:
            board.add_run(point_id, view.run_path(run.info.experiment_id, run.info.run_id))
        if glossary.VERDICT in tags and "proof" not in known:
            proof = (load_proof if self._verify else read_proof)(client, run, "validation")
            board.add_proof(point_id, proof)
        if tags.get(glossary.TESTED) == "true" and "test" not in known:
            self._take_test(run)
        if set(timed_devices(run)) - known:
            board.add_timings(point_id, load_timings(client, run))
        known |= {"run", *timed_devices(run)}
        known |= {"proof"} if glossary.VERDICT in tags else set()
        known |= {"test"} if tags.get(glossary.TESTED) == "true" else set()
        return point_id

    def _take_test(self, run: Run) -> None:
        """Take in what a chosen point does to the test split."""
        record = load_record(self.client, run, "test")
        point_id = run.data.tags[glossary.POINT_ID]
        point = derive(record, self._board.point(point_id).provenance)
        self._board.add_test(point_id, Tested.of(point, Evidence.of(record)))


def read_board(uri: str, sweep_ids: Sequence[str], *, pictures: Thumbnails | None = None) -> Board:
    """Return a board of all points of sweeps that were measured on the same images.

    Where their dense networks differ, fractions of MACs are counted from the dearest.

    Args:
        uri: the store.
        sweep_ids: at least one.
        pictures: of those images.

    Raises:
        DataError: a sweep without points, or sweeps of different images.
    """
    client = read_store(uri)
    board = Board(Reference(), pictures)
    board.setting = setting_of(uri)
    reader = BoardReader(client, board, verify=True)
    for sweep_id in sweep_ids:
        if not [reader.take(run) for run in point_runs(client, sweep_id)]:
            raise DataError(f"No operating point of a sweep {sweep_id!r} is in the store.")
    kinds = {(point.dataset, point.split, point.figures.images) for point in board.points}
    if len(kinds) > 1:
        raise DataError(f"Points must be of the same images, but are of {sorted(kinds)}.")
    _share_reference(board)
    return board


def _share_reference(board: Board) -> None:
    """Count all points' fractions of MACs from the dearest of their dense networks."""
    dearest = max(point.dense_macs for point in board.points)
    for point in board.points:
        if point.dense_macs != dearest:
            board.replace(referred_to(point, dearest))


def setting_of(uri: str) -> Setting:
    """Return where a page finds the runs that it links to."""
    if uri.startswith("http"):
        return Setting(server=view.without_credentials(uri), server_hint="")
    return Setting()
