"""Layers whose best shares are known."""

import numpy as np
import pytest

from pruning_envs.network_oracle import OracleLayers

LAYERS = OracleLayers(sizes=(0.5, 0.5), needs=(0.2, 0.6))


def test_the_known_optimum() -> None:
    shares_T, accuracy = LAYERS.best(0.5)
    np.testing.assert_allclose(shares_T, [0.75, 0.25])
    assert accuracy == pytest.approx(0.85)
    assert LAYERS.size(shares_T) == pytest.approx(0.5)
    # No other pair at that cost is better.
    others = [np.array([0.5 + d, 0.5 - d]) for d in np.linspace(-0.5, 0.5, 101)]
    assert max(LAYERS.accuracy(o, finetune_steps=0, seed=0) for o in others) <= accuracy + 1e-9
