"""The paired bootstrap: against a formula, and on points whose ranking is certain."""

import numpy as np
import pytest

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier.uncertainty import (
    Evidence,
    Interval,
    accuracy_interval,
    attained_band,
    interval,
    probability_on_front,
    resample,
)


def evidence(correct_N: np.ndarray, macs: int) -> Evidence:
    n = len(correct_N)
    return Evidence(np.arange(n), correct_N.astype(bool), np.full(n, macs), np.arange(n))


def test_interval_matches_the_binomial() -> None:
    correct_N = np.arange(1000) < 800
    redrawn = resample([evidence(correct_N, 10)], replicates=2000, rng=np.random.default_rng(0))
    # Standard error of a share: sqrt(0.8 * 0.2 / 1000) = 0.012649.
    assert redrawn.accuracy_RP.std() == pytest.approx(0.012649, rel=0.05)
    low_P, high_P = interval(redrawn.accuracy_RP)
    assert low_P[0] == pytest.approx(0.8 - 1.96 * 0.012649, abs=0.003)
    assert high_P[0] == pytest.approx(0.8 + 1.96 * 0.012649, abs=0.003)
    assert (redrawn.macs_RP == 10).all()


def test_images_of_one_source_are_drawn_together() -> None:
    # 100 sources of ten images that are all right or all wrong: as sure as 100 images, not 1,000.
    correct_N = np.arange(1000) % 100 < 80
    alone = evidence(correct_N, 10)
    together = alone._replace(sources_N=np.arange(1000) % 100)
    deviations = [
        resample([each], replicates=2000, rng=np.random.default_rng(0)).accuracy_RP.std()
        for each in (alone, together)
    ]
    # sqrt(0.8 * 0.2 / 1000) and sqrt(0.8 * 0.2 / 100).
    assert deviations == pytest.approx([0.012649, 0.04], rel=0.05)


def test_sources_of_different_sizes_weigh_by_their_images() -> None:
    facts = evidence(np.array([1, 1, 1, 0]), 10)._replace(sources_N=np.array([7, 7, 7, 2]))
    redrawn = resample([facts], replicates=200, rng=np.random.default_rng(0))
    # Two sources are drawn: both large, both small, or one of each.
    assert set(redrawn.accuracy_RP.ravel().tolist()) == {1.0, 0.0, 0.75}


def test_draws_are_paired() -> None:
    correct_N = np.arange(1000) < 500
    worse_N = correct_N & (np.arange(1000) >= 5)  # wrong wherever the first is, and on 5 more
    redrawn = resample(
        [evidence(correct_N, 10), evidence(worse_N, 10)],
        replicates=200,
        rng=np.random.default_rng(0),
    )
    # Unpaired draws (standard error 0.016) would turn the order round four times in ten.
    assert (redrawn.accuracy_RP[:, 0] >= redrawn.accuracy_RP[:, 1]).all()


def test_same_seed_same_draws() -> None:
    facts = [evidence(np.arange(50) % 3 == 0, 10)]
    one = resample(facts, replicates=5, rng=np.random.default_rng(1)).accuracy_RP
    two = resample(facts, replicates=5, rng=np.random.default_rng(1)).accuracy_RP
    other = resample(facts, replicates=5, rng=np.random.default_rng(2)).accuracy_RP
    assert one.tolist() == two.tolist() != other.tolist()


def test_probability_of_the_front() -> None:
    n = 400
    half_N = np.arange(n) % 2 == 0
    rivals = [
        evidence(half_N, 10),  # certain: cheapest
        evidence(half_N & (np.arange(n) < 0), 20),  # never: dearer, and always wrong
        evidence(~half_N, 20),  # a coin: as accurate as the first, and dearer
    ]
    redrawn = resample(rivals, replicates=1000, rng=np.random.default_rng(0))
    first, second, third = probability_on_front(redrawn)
    assert (first, second) == (1.0, 0.0)
    assert third == pytest.approx(0.48, abs=0.06)  # a tie is lost by the dearer


def test_a_budget_buys_the_best_that_it_affords() -> None:
    ends = np.array([0.4, 0.35, 0.8]), np.array([0.5, 0.6, 0.55])
    low_F, high_F = attained_band(Interval(*ends))
    assert low_F.tolist() == [0.4, 0.4, 0.8]
    assert high_F.tolist() == [0.5, 0.6, 0.6]


def test_wilsons_interval_by_hand() -> None:
    low_P, high_P = accuracy_interval([evidence(np.arange(10) < 9, 1), evidence(np.ones(10), 1)])
    # As Wilson gives them for 9 and for 10 of 10, z = 1.959964.
    assert low_P.tolist() == pytest.approx([0.59585, 0.72247], abs=1e-5)
    assert high_P.tolist() == pytest.approx([0.98212, 1.0], abs=1e-5)


@pytest.mark.parametrize(("truth", "images"), [(0.995, 350), (0.98, 350), (0.9, 3000)])
def test_accuracies_near_one_are_covered(truth: float, images: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low_P, high_P = accuracy_interval([evidence(rng.random(images) < truth, 1)])
        covered += low_P[0] <= truth <= high_P[0]
    assert covered >= 366  # 95 % of 400 is 380; fewer than 366 has a chance of 1 in 1,000


def test_sources_that_are_all_right_or_all_wrong_count_once_each() -> None:
    correct_N = np.arange(1000) % 100 < 90
    facts = evidence(correct_N, 1)
    together = accuracy_interval([facts._replace(sources_N=np.arange(1000) % 100)])
    hundred = accuracy_interval([evidence(np.arange(100) < 90, 1)])
    assert together.low_P[0] == pytest.approx(hundred.low_P[0], abs=1e-6)
    # Sources that are all right nine times in ten tell as much as their images do.
    alike = accuracy_interval([facts._replace(sources_N=np.arange(1000) // 10)])
    assert alike.low_P[0] <= accuracy_interval([facts]).low_P[0]


def test_other_images_do_not_pair() -> None:
    one = evidence(np.ones(3), 1)
    with pytest.raises(DataError, match="same images"):
        resample(
            [one, one._replace(image_ids_N=np.array([0, 1, 9]))],
            replicates=1,
            rng=np.random.default_rng(0),
        )


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="replicates >= 1"):
        resample([evidence(np.ones(3), 1)], replicates=0, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match="0 < level < 1"):
        interval(np.ones((3, 1)), level=1.0)
