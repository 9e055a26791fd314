"""A few networks of torchvision and timm, each for a thing that it does, run as they do plainly.

``tests/benchmarks/accepted_networks.py`` draws forty of each by chance.
"""

import pytest
from accepted_networks import timm_networks, torchvision_networks, tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sites", "convolutions"),
    [
        ("squeezenet1_1", 8, 26),  # concatenates: the squeezing convolutions are sites
        ("shufflenet_v2_x0_5", 17, 37),  # splits, and shuffles channels by shape arithmetic
        ("mobilenet_v3_small", 23, 41),  # squeezes and excites
    ],
)
def test_torchvisions(name: str, sites: int, convolutions: int) -> None:
    outcome = tried(name, torchvision_networks()[name], deployed=False)
    assert (outcome.refused, outcome.wrong) == ("", "")
    assert (outcome.sites, outcome.convolutions) == (sites, convolutions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sites", "convolutions"),
    [
        ("starnet_s050", 9, 23),  # multiplies two branches
        ("hardcorenas_b", 36, 46),  # batch norms with activations of their own
        ("tf_mobilenetv3_small_075", 21, 41),  # pads by what the image's size asks for
    ],
)
def test_timms(name: str, sites: int, convolutions: int) -> None:
    outcome = tried(name, timm_networks()[name], deployed=False)
    assert (outcome.refused, outcome.wrong) == ("", "")
    assert (outcome.sites, outcome.convolutions) == (sites, convolutions)
