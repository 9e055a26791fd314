"""Operating points and the frontier that they draw: facts are stored, numbers are derived.

``records`` holds what was seen per image, ``points`` what one policy amounts to, ``dominance`` and
``uncertainty`` are pure functions of these, ``summary`` joins them, ``report`` draws.
"""

from runtime_pruning.frontier.points import Figures, OperatingPoint, Provenance, derive
from runtime_pruning.frontier.records import Record, read_record, write_record

__all__ = [
    "Figures",
    "OperatingPoint",
    "Provenance",
    "Record",
    "derive",
    "read_record",
    "write_record",
]
