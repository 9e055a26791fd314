"""A page that follows a sweep: real store, real files."""

import json
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier import write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.watching import BESIDE, watch

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def beside(folder: Path) -> dict[str, Any]:
    """Return the newest data, as the script beside the page holds it."""
    text = (folder / BESIDE).read_text()
    facts: dict[str, Any] = json.loads(text.removeprefix("takeFrontier(").rstrip(";)\n"))
    return facts


def wait_for(lines: list[str], count: int) -> None:
    deadline = time.monotonic() + 60
    while len(lines) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)


def test_a_page_follows_a_sweep_to_its_end(uri: str, tmp_path: Path, synthetic: ModuleType) -> None:
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    made = [synthetic.make_point(share, penalty=p) for share, p in ((0.3, 0.05), (0.6, 0.02))]
    for number, (_, record) in enumerate(made):
        write_record(record, tmp_path / f"{number}.parquet")
    tracker.start_sweep({})
    tracker.log_point(made[0][0], tmp_path / "0.parquet")
    tracker.replay()
    lines: list[str] = []
    folder = tmp_path / "live"
    watching = threading.Thread(
        target=watch, args=(uri, "s1", folder), kwargs={"every_s": 0.1, "tell": lines.append}
    )
    watching.start()
    wait_for(lines, 1)
    first = beside(folder)
    assert lines[0].startswith("1 points, 1 on the front: ")
    assert (first["live"], len(first["points"]["point_id"])) == (True, 1)
    tracker.log_point(made[1][0], tmp_path / "1.parquet")
    tracker.replay()
    wait_for(lines, 2)
    assert len(beside(folder)["points"]["point_id"]) == 2
    tracker.finish()
    watching.join(60)
    assert not watching.is_alive()
    last = beside(folder)
    assert (last["live"], len(last["points"]["point_id"])) == (False, 2)
    assert last["version"] != first["version"]
    assert '"live":false' in (folder / "frontier.html").read_text()


def test_what_cannot_be_watched_is_named(uri: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No sweep 's9'"):
        watch(uri, "s9", tmp_path)
    with pytest.raises(ConfigError, match="`every_s > 0` must hold, but got 0"):
        watch(uri, "s9", tmp_path, every_s=0)
    tracker = FrontierTracker(uri, "frontier", "s1", tmp_path / "spool")
    tracker.start_sweep({})
    tracker.finish()
    with pytest.raises(DataError, match="ended without an operating point"):
        watch(uri, "s1", tmp_path)
