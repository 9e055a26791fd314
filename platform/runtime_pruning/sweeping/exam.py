"""The exam: one reading of the test split, of what was chosen without it, and counted.

Beside a sweep lies ``exams.json``: when each reading was, and of how many points. A sweep that
ended without an exam is started again with one; all else of it is done, and stays.
"""

import json
import time

from runtime_pruning.config import build_config
from runtime_pruning.errors import DataError
from runtime_pruning.places import Place
from runtime_pruning.sweeping.config import SweepConfig

EXAMS = "exams.json"
SETTINGS = "sweep.json"


def count_reading(place: Place, points: int) -> int:
    """Write down that the test split was read for some points; return how often it was.

    Args:
        place: the sweep's.
        points: for which it had not been read before.
    """
    known = json.loads(place.read_text(EXAMS) or "[]")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known.append({"at": now, "points": points})
    place.write_text(EXAMS, json.dumps(known, indent=2) + "\n")
    return len(known)


def examined(sweep_id: str, results: Place) -> SweepConfig:
    """Return the configuration of a sweep that is there, with the exam on.

    Args:
        sweep_id: whose.
        results: the place that sweeps lie in.

    Raises:
        DataError: no such sweep.
        ConfigError: it was started by a version with other settings.
    """
    text = (results / sweep_id).read_text(SETTINGS)
    if text is None:
        raise DataError(f"No sweep {sweep_id!r} lies in {results.address}.")
    values = {**json.loads(text), "exam": True}
    return build_config(SweepConfig, values, where=f"Sweep {sweep_id!r}")
