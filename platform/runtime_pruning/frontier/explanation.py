"""From a point's records to what is said of its decisions: numbers, pictures.

A folder holds the records of the controls and of the oracle, and in ``controls.json`` what they
are, and at which sites there are decisions to show, where not at all; everything else in it is
written here, and can be at any time again.
"""

import json
from pathlib import Path
from typing import NamedTuple

from runtime_pruning.datasets import Split
from runtime_pruning.errors import DataError
from runtime_pruning.files import write_text
from runtime_pruning.frontier.decisions_picture import draw_decisions, draw_gallery
from runtime_pruning.frontier.dynamics import Dynamics, decisions_of, upper_bound_of
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Controls, Proof, prove
from runtime_pruning.frontier.records import Record, read_record
from runtime_pruning.glossary import CONTROLS_FILE, DECISIONS, DYNAMICS_FILE, GALLERY, ORACLE


def explain(
    point: OperatingPoint,
    record: Record,
    folder: Path,
    dense: Record | None,
    classes: tuple[str, ...],
) -> Dynamics:
    """Return what a point's records say of its decisions.

    Args:
        point: whose decisions.
        record: of its policy; of either split.
        folder: where the records of controls and oracle lie.
        dense: record of the dense network on the same images.
        classes: names of the labels.

    Raises:
        DataError: a record is missing, or is of other images.
    """
    path = folder / CONTROLS_FILE
    if not path.is_file():
        raise DataError(f"What the controls are must be in {path}, but it is absent.")
    facts = json.loads(path.read_text())
    oracle = folder / ORACLE
    return Dynamics(
        point_id=point.point_id,
        split=record.split,
        dense_macs=point.dense_macs,
        proof=prove(record, Controls.read(folder)),
        decisions=decisions_of(record, facts["bounds"], classes, dense, facts.get("shown")),
        upper_bound=upper_bound_of(record, read_record(oracle)) if oracle.exists() else None,
    )


def write_explanation(
    dynamics: Dynamics, point: OperatingPoint, record: Record, split: Split, folder: Path
) -> None:
    """Write pictures, then ``dynamics.json``, which marks the folder as whole."""
    what = f"{point.method} on {point.backbone}, {point.dataset}, {record.split} split"
    penalty = "" if point.penalty is None else f", penalty {point.penalty:.3g}"
    accuracy = f"{100 * record.correct_N.mean():.2f} %"
    share = f"{record.executed_macs_N.mean() / point.dense_macs:.1%} of dense MACs"
    draw_decisions(
        dynamics,
        folder / DECISIONS,
        title=f"{what}{penalty}, {accuracy} at {share}",
    )
    draw_gallery(
        record,
        split,
        folder / GALLERY,
        dense_macs=point.dense_macs,
        title=f"{what}{penalty}: cost of dense MACs",
    )
    write_text(folder / DYNAMICS_FILE, json.dumps(dynamics.to_dict(), indent=2) + "\n")


class Explanation(NamedTuple):
    """What ``dynamics.json`` says: numbers by the glossary's names, and the proof."""

    numbers: dict[str, float]
    proof: Proof


def read_explanation(folder: Path) -> Explanation:
    """Return what :func:`write_explanation` wrote, without drawing a proof again.

    Raises:
        DataError: the file is absent, or is none of ours.
    """
    path = folder / DYNAMICS_FILE
    try:
        facts = json.loads(path.read_text())
        return Explanation(facts["numbers"], Proof.from_dict(facts["proof"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"No readable explanation at {path}: {error!r}") from error
