"""A sweep's page while it runs: read from the store, drawn again whenever something is new."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Run

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.showing import Live, Thumbnails
from runtime_pruning.tracking.boards import BoardReader, setting_of
from runtime_pruning.tracking.rebuild import point_runs, sweep_run
from runtime_pruning.tracking.storage import read_store

BESIDE = "frontier-data.js"


def watch(
    uri: str,
    sweep_id: str,
    folder: Path,
    *,
    pictures: Thumbnails | None = None,
    every_s: float = 5.0,
    tell: Callable[[str], None] = print,
) -> Board:
    """Keep a page in ``folder`` up to date until the sweep ends; return what it shows then.

    A page that is open reads the newest data from a file beside it; the last one needs none.

    Args:
        uri: the store.
        sweep_id: which sweep.
        folder: where page, picture and table are drawn.
        pictures: of the images that points are measured on.
        every_s: seconds between two looks at the store.
        tell: takes a line for each drawing.

    Raises:
        ConfigError: no time between two looks.
        DataError: no such sweep in the store, or one that ended without a point.
    """
    if every_s <= 0:
        raise ConfigError(f"`every_s > 0` must hold, but got {every_s}.")
    board, setting = Board(Reference(), pictures), setting_of(uri)
    reader = BoardReader(read_store(uri), board)
    client = reader.client
    while True:
        # Its state before its points: what was written before it ended is then read.
        ended = _sweep(sweep_run(client, sweep_id), sweep_id, uri).info.status != "RUNNING"
        for run in point_runs(client, sweep_id):
            reader.take(run)
        if ended and not len(board):
            raise DataError(f"Sweep {sweep_id!r} ended without an operating point.")
        if len(board) and (ended or not board.is_drawn):
            board.setting = replace(setting, live=Live(beside=BESIDE, every_s=every_s, ended=ended))
            drawn = board.draw(folder)
            tell(f"{len(board)} points, {len(drawn.summary.front)} on the front: {drawn.page}")
        if ended:
            return board
        time.sleep(every_s)
        client = reader.client = read_store(uri)  # a store that is read as a copy is copied anew


def _sweep(run: Run | None, sweep_id: str, uri: str) -> Run:
    if run is None:
        raise DataError(f"No sweep {sweep_id!r} is in the MLflow store at {uri}.")
    return run
