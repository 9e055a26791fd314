"""Advantages by hand, at equal cost, with intervals that cover what they promise."""

from pathlib import Path

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.proof import Controls, control_path, prove
from runtime_pruning.frontier.records import Record, write_record


def record(correct: list[int], macs: list[int], *, first: int = 0) -> Record:
    count = len(correct)
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(first, first + count),
        labels_N=np.ones(count, dtype=np.int64),
        predictions_N=np.array(correct),
        losses_N=np.zeros(count),
        channels_NL=np.full((count, 1), 4),
        executed_macs_N=np.array(macs),
    )


def test_gains_by_hand() -> None:
    policy = record([1, 1, 1, 0], [10, 20, 30, 20])
    low, high = record([1, 0, 0, 0], [10] * 4), record([1, 1, 1, 0], [50] * 4)
    shuffled = (record([0, 1, 1, 0], [20] * 4), record([1, 1, 1, 1], [20] * 4))
    proof = prove(policy, Controls((low, high), shuffled, (policy,)), replicates=50)
    # Mean cost 20 is a quarter of the way from 10 to 50.
    assert proof.fixed.accuracy == 0.75 * 0.25 + 0.25 * 0.75
    assert proof.fixed.macs_per_image == 20
    assert proof.fixed.value == 0.75 - proof.fixed.accuracy
    assert (proof.shuffled.accuracy, proof.shuffled.value) == (0.75, 0.0)
    assert (proof.random.value, proof.random.low, proof.random.high) == (0.0, 0.0, 0.0)
    assert proof.verdict == "static"


def test_a_cost_beyond_what_the_fixed_plans_cover_is_served_by_the_nearer() -> None:
    plans = record([1, 0], [10, 10]), record([1, 1], [20, 20])
    for macs, accuracy in ((5, 0.5), (25, 1.0)):
        policy = record([1, 1], [macs] * 2)
        proof = prove(policy, Controls(plans, (policy,), (policy,)), replicates=10)
        assert proof.fixed.accuracy == accuracy


def test_the_verdict_asks_for_both_fixed_and_shuffled() -> None:
    rng = np.random.default_rng(0)
    good = record((rng.random(400) < 0.9).astype(int).tolist(), [10] * 400)
    bad = record((rng.random(400) < 0.5).astype(int).tolist(), [10] * 400)
    assert prove(good, Controls((bad,), (bad,), (good,))).verdict == "dynamic"
    assert prove(good, Controls((good,), (bad,), (bad,))).verdict == "static"
    assert prove(good, Controls((bad,), (good,), (bad,))).verdict == "static"


def test_intervals_cover_the_truth_and_grow_with_the_spread_of_seeds() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        policy = record((rng.random(150) < 0.8).astype(int).tolist(), [1] * 150)
        control = record((rng.random(150) < 0.7).astype(int).tolist(), [1] * 150)
        gain = prove(policy, Controls((control,), (control,), (control,)), replicates=300).fixed
        covered += gain.low <= 0.1 <= gain.high
    assert covered >= 51  # 95 % of 60 is 57; fewer than 51 has a chance of 1 in 1,000

    alike = tuple(record([1, 0] * 100, [1] * 200) for _ in range(4))
    apart = tuple(record([k % 2] * 200, [1] * 200) for k in range(4))
    sure = prove(alike[0], Controls(alike[:1], alike, alike)).shuffled
    unsure = prove(alike[0], Controls(alike[:1], apart, alike)).shuffled
    assert (sure.low, sure.high) == (0.0, 0.0)
    assert unsure.high - unsure.low > 0.4


@pytest.mark.parametrize("seeds", [1, 3, 7])
def test_what_changes_nothing_gains_nothing_to_the_last_bit(seeds: int) -> None:
    # 125 / 300 is no binary fraction, nor is a third: rounding must not turn 0 into "above 0".
    same = record([1] * 125 + [0] * 175, [3] * 300)
    proof = prove(same, Controls((same,), (same,) * seeds, (same,) * seeds))
    for gain in (proof.fixed, proof.shuffled, proof.random):
        assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)
    assert proof.verdict == "static"


def test_controls_are_read_back(tmp_path: Path) -> None:
    one, two = record([1, 0], [1, 2]), record([0, 1], [3, 4])
    for number, each in enumerate((one, two)):
        for name in ("fixed", "shuffled"):
            write_record(each, control_path(tmp_path, name, number))
    with pytest.raises(DataError, match="'random': 0"):
        Controls.read(tmp_path)
    write_record(two, control_path(tmp_path, "random", 0))
    assert Controls.read(tmp_path) == Controls((one, two), (one, two), (two,))


def test_controls_of_other_images_are_refused() -> None:
    policy, other = record([1, 0], [1, 1]), record([1, 0], [1, 1], first=5)
    with pytest.raises(DataError, match="same images"):
        prove(policy, Controls((other,), (policy,), (policy,)))
