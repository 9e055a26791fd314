"""Signs of others' work: what is put up with, in words, and what the system tells."""

import os
import time

import pytest

from runtime_pruning.timing.contamination import Limits, NoiseReport, SystemClock, Watch

QUIET = {
    "load_average": 9.0,  # a note, no sign
    "lost": 0.0,
    "crowded": 0.0,
    "stolen": 0.0,
    "foreign": 0.9,  # likewise
    "switches_per_s": 99.0,  # likewise
    "dispersion": 0.0,
}


def test_a_quiet_machine_gives_no_reason() -> None:
    assert NoiseReport(**QUIET).reasons(Limits()) == ()


@pytest.mark.parametrize(
    ("sign", "value", "why"),
    [
        ("lost", 0.06, "the wall clock ran on while the work did not: lost 0.06 > 0.05."),
        ("crowded", 0.2, "others left too few processors for this process's threads"),
        ("stolen", 0.1, "other virtual machines used the processors: stolen 0.10 > 0.05."),
        ("dispersion", 0.3, "rounds disagree about the ratio: dispersion 0.30 > 0.25."),
    ],
)
def test_each_sign_beyond_its_limit_is_one_sentence(sign: str, value: float, why: str) -> None:
    (reason,) = NoiseReport(**{**QUIET, sign: value}).reasons(Limits())
    assert why in reason
    assert NoiseReport(**{**QUIET, sign: value}).reasons(Limits(**{sign: value})) == ()


def test_what_the_system_does_not_tell_is_no_sign() -> None:
    silent = {**QUIET, "crowded": None, "stolen": None, "foreign": None}
    assert NoiseReport(**silent).reasons(Limits()) == ()


def test_clocks_move_with_what_they_measure() -> None:
    clock = SystemClock()
    before = clock.read()
    time.sleep(0.02)
    slept = clock.read()
    assert slept.wall_ns - before.wall_ns >= 20e6
    assert slept.thread_ns - before.thread_ns < 10e6  # asleep
    total = 0
    while clock.read().thread_ns - slept.thread_ns < 5e6:
        total += 1
    assert clock.read().process_ns - slept.process_ns >= 5e6


def test_a_watch_of_less_than_a_second_tells_nothing() -> None:
    watch = Watch()
    assert watch.stolen() is watch.foreign() is watch.crowded(os.cpu_count() or 1) is None
