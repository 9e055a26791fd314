"""Advantages by hand, at equal cost, with intervals that cover what they promise."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.proof import Controls, Proof, control_path, prove
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
    assert proof.random.value == 0
    assert proof.verdict == "static"


def test_the_best_mixture_of_the_fixed_plans_counts_whichever_they_are() -> None:
    policy = record([1, 1, 0, 0], [20] * 4)
    plans = (
        record([0, 0, 0, 1], [10] * 4),  # with the dearest, a quarter of the way: 0.4375
        record([1, 1, 0, 0], [15] * 4),  # alone: 0.5; with the dearest, a seventh: 0.5714
        record([0, 0, 0, 0], [20] * 4),
        record([1, 1, 1, 1], [50] * 4),
    )
    gain = prove(policy, Controls(plans, (policy,), (policy,)), replicates=50).fixed
    assert gain.accuracy == pytest.approx(0.5 + 0.5 / 7)
    assert gain.macs_per_image == pytest.approx(20)
    # Whatever the sweep's fixed points are, the control is not below one that costs no more.
    for plan in plans:
        assert plan.executed_macs_N.mean() > 20 or gain.accuracy >= plan.correct_N.mean()


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


def test_who_is_no_better_than_a_threshold_is_called_so() -> None:
    good, bad = record([1] * 360 + [0] * 40, [10] * 400), record([1, 0] * 200, [10] * 400)
    by_threshold = prove(good, Controls((bad,), (bad,), (good,), (good,)))
    assert by_threshold.verdict == "not better than a threshold"
    assert by_threshold.threshold is not None
    assert by_threshold.threshold.value == 0
    assert prove(good, Controls((bad,), (bad,), (good,), (bad,))).verdict == "dynamic"
    assert prove(bad, Controls((bad,), (bad,), (bad,), (bad,))).verdict == "static"
    assert Proof.from_dict(asdict(by_threshold)) == by_threshold


@pytest.mark.parametrize(("more", "is_shown"), [(5, False), (6, True)])
def test_few_images_that_tell_two_apart_are_counted(more: int, is_shown: bool) -> None:
    # All of `more` images speak for the policy: by the sign test, p = 0.0625 and 0.03125.
    policy, correct = record([1] * 350, [1] * 350), [0] * more + [1] * (350 - more)
    control = record(correct, [1] * 350)
    gain = prove(policy, Controls((control,), (control,), (control,))).fixed
    assert (gain.low > 0) == is_shown


def test_a_plan_that_never_changes_gains_nothing_over_fixed_widths() -> None:
    # Sixteen plans, one of which the policy gives to every image. 40 images chose the control:
    # wrong ones, often. The policy's own plan is among the controls, as `proving` has it.
    rng = np.random.default_rng(0)
    shown, truths = 0, np.linspace(0.6, 0.9, 16)
    for _ in range(40):
        own = record((rng.random(300) < truths[-1]).astype(int).tolist(), [10] * 300)
        chosen = int(rng.binomial(40, truths).argmax())
        other = record((rng.random(300) < truths[chosen]).astype(int).tolist(), [10] * 300)
        gain = prove(own, Controls((other, own), (own,), (own,)), replicates=200).fixed
        assert gain.value <= 0
        shown += gain.low > 0
    assert shown == 0


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
    assert sure.high - sure.low < 0.04
    assert unsure.high - unsure.low > 0.4


@pytest.mark.parametrize("seeds", [1, 3, 7])
def test_what_changes_nothing_is_static_and_gains_nothing_to_the_last_bit(seeds: int) -> None:
    # 125 / 300 is no binary fraction, nor is a third: rounding must not turn 0 into "above 0".
    same = record([1] * 125 + [0] * 175, [3] * 300)
    proof = prove(same, Controls((same,), (same,) * seeds, (same,) * seeds))
    for gain in (proof.fixed, proof.shuffled, proof.random):
        assert gain.value == 0.0
        assert gain.low < 0 < gain.high
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
    write_record(one, control_path(tmp_path, "threshold", 0))
    assert Controls.read(tmp_path).threshold == (one,)


def test_controls_of_other_images_are_refused() -> None:
    policy, other = record([1, 0], [1, 1]), record([1, 0], [1, 1], first=5)
    with pytest.raises(DataError, match="same images"):
        prove(policy, Controls((other,), (policy,), (policy,)))
