"""Controls of a cascade: other sets of its members on the same images, from the members' answers.

*Fixed*: one set of members for every image, or two that bracket the cascade's MACs, chosen on the
policy split. *Shuffled*: the cascade's own sets, dealt out to the images at random. *Random*: which
images a member runs on is drawn for each member alone. The last two take no decisions.

Dimensions: N images, M members, S sets of members.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pruning_envs.cascade_table import members_of
from runtime_pruning.cascades import align, record_of_sets
from runtime_pruning.datasets import HeldOutSplit, ImageDataset, PolicySplit
from runtime_pruning.deploy import CascadeBundle
from runtime_pruning.files import write_text
from runtime_pruning.frontier.proof import control_path
from runtime_pruning.frontier.records import Ints, Record, write_record
from runtime_pruning.glossary import CONTROLS_FILE, ORACLE
from runtime_pruning.methods.evaluation import measured
from runtime_pruning.methods.recording import record_of
from runtime_pruning.sweeping.config import ProofConfig

Floats = npt.NDArray[np.float64]


def measure_cascade_controls(
    bundle: CascadeBundle,
    record: Record,
    images: HeldOutSplit,
    data: ImageDataset,
    folder: Path,
    settings: ProofConfig,
    *,
    eval_batch: int,
    seed: int,
) -> None:
    """Measure each control that has no record in the folder yet.

    Args:
        bundle: the cascade.
        record: of it, on ``images``.
        images: in the record's order.
        data: that they belong to.
        folder: gets the controls' records, and ``controls.json``.
        settings: how many there are.
        eval_batch: images per batch.
        seed: of the oracle's sample.
    """
    records = member_records(bundle, images, data, eval_batch)
    sets_N = sets_of(bundle, record)

    def keep(path: Path, chosen_N: Callable[[], Ints]) -> None:
        if not path.exists():
            write_record(record_of_sets(records, bundle.combination, chosen_N()), path)

    fixed = _fixed_sets(bundle, record, data, folder, settings, eval_batch)
    for number, chosen in enumerate(fixed):
        keep(control_path(folder, "fixed", number), partial(np.full_like, sets_N, chosen))
    for draw in range(settings.seeds):
        keep(control_path(folder, "shuffled", draw), partial(_dealt, sets_N, draw))
        own = partial(_drawn, sets_N, len(bundle.members), draw)
        keep(control_path(folder, "random", draw), own)
    if settings.oracle_images and not (folder / ORACLE).exists():
        count = min(settings.oracle_images, len(images))
        rows_N = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
        some = member_records(bundle, images.take(rows_N), data, eval_batch)
        write_record(_oracle(some, bundle), folder / ORACLE)


def member_records(
    bundle: CascadeBundle, images: HeldOutSplit | PolicySplit, data: ImageDataset, eval_batch: int
) -> list[Record]:
    """Return what each member answers to all of some images."""
    return [
        record_of(
            measured(member.execute, images, member.device, batch_size=eval_batch),
            images,
            content=data.content_hash(),
        )
        for member in bundle.members
    ]


def sets_of(bundle: CascadeBundle, record: Record) -> Ints:
    """Return ``sets_N``, the members that ran on each image of a cascade's record."""
    sets_N = np.zeros(len(record), np.int64)
    first = 0
    for number, member in enumerate(bundle.members):
        last = first + member.num_sites
        sets_N |= record.channels_NL[:, first:last].any(axis=1).astype(np.int64) << number
        first = last
    return sets_N


def _fixed_sets(
    bundle: CascadeBundle,
    record: Record,
    data: ImageDataset,
    folder: Path,
    settings: ProofConfig,
    eval_batch: int,
) -> list[int]:
    """Return one set, or two that bracket the cascade's MACs; they are chosen once."""
    path = folder / CONTROLS_FILE
    if not path.exists():
        known = data.policy.head(min(settings.search_images, len(data.policy)))
        answers = align(member_records(bundle, known, data, eval_batch))
        table = bundle.combination.table(answers, 1.0)
        accuracy_S, macs_S = table.correct().mean(axis=0), table.total_costs().mean(axis=0)
        first_sites = [member.network.sites[0] for member in bundle.members]
        ends = np.cumsum([0, *(member.num_sites for member in bundle.members)])
        facts = {
            "bounds": [list(site.bounds) for site in first_sites],
            "shown": ends[:-1].tolist(),
            "settings": asdict(settings),
            "fixed": best_sets(accuracy_S, macs_S, float(record.executed_macs_N.mean())),
        }
        write_text(path, json.dumps(facts, indent=2) + "\n")
    return [int(number) for number in json.loads(path.read_text())["fixed"]]


def best_sets(accuracy_S: Floats, macs_S: Floats, budget: float) -> list[int]:
    """Return the set, or the two of which a mixture at a budget is the most accurate.

    Args:
        accuracy_S: of each set of members; no member, set 0, is none.
        macs_S: that they cost.
        budget: mean MACs per image; where none costs as little, the cheapest set is returned.
    """
    sets = range(1, len(macs_S))
    below = [number for number in sets if macs_S[number] <= budget]
    if not below:
        return [min(sets, key=lambda number: macs_S[number])]
    best = max(below, key=lambda number: accuracy_S[number])
    found, reached = [best], accuracy_S[best]
    for low in below:
        for high in set(sets) - set(below):
            share = (budget - macs_S[low]) / (macs_S[high] - macs_S[low])
            mixed = (1 - share) * accuracy_S[low] + share * accuracy_S[high]
            if mixed > reached:
                found, reached = [low, high], mixed
    return found


def _dealt(sets_N: Ints, seed: int) -> Ints:
    """Return the same sets in an order that has nothing to do with the images."""
    return np.random.default_rng(seed).permutation(sets_N)


def _drawn(sets_N: Ints, members: int, seed: int) -> Ints:
    """Return sets in which each member runs on as many images, drawn for it alone."""
    rng, ran_NM = np.random.default_rng(seed), members_of(sets_N, members)
    drawn_NM = np.stack([rng.permutation(column) for column in ran_NM.T], axis=1)
    drawn_N: Ints = (drawn_NM.astype(np.int64) << np.arange(members)).sum(axis=1)
    return drawn_N


def _oracle(records: list[Record], bundle: CascadeBundle) -> Record:
    """Return the record of the cheapest right set of each image, the cheapest where none is."""
    table = bundle.combination.table(align(records), 1.0)
    cost_NS = np.where(table.correct(), table.total_costs(), np.inf)[:, 1:]
    cheapest = 1 + table.total_costs()[:, 1:].argmin(axis=1)
    sets_N = np.where(np.isfinite(cost_NS).any(axis=1), 1 + cost_NS.argmin(axis=1), cheapest)
    return record_of_sets(records, bundle.combination, sets_N.astype(np.int64))
