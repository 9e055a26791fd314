"""The executor's gate: whatever is put together by chance runs alike in every mode, or is refused.

``tests/benchmarks/random_networks.py`` runs thousands; hypothesis shrinks what fails.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from random_networks import Block, Conv, Spec, check, specs

ANY = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "networks"), [(1, 75), (2, 25)])
def test_networks_run_alike_in_every_mode(threads: int, networks: int) -> None:
    told: list[str] = []
    torch.set_num_threads(threads)

    @settings(ANY, max_examples=networks)
    @given(specs())
    def run(spec: Spec) -> None:
        told.append(check(spec))

    run()
    assert len(told) >= networks
    assert sum(each == "right" for each in told) >= networks / 3


def residual(*convs: Conv, **settings: str) -> Spec:
    """Return a network of one residual block."""
    block = Block(kind="residual", convs=convs, **settings)  # type: ignore[arg-type]
    return Spec(blocks=(block,), stem=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "spec",
    [
        # The stream is whole, its addend pruned: what the images leave out must count as zero.
        residual(Conv(channels=6, order="act", act="tanh"), shortcut="conv1"),
        residual(Conv(channels=6), Conv(channels=6, act="relu"), shortcut="conv1"),
        # oneDNN's fused add knows ReLU alone.
        residual(Conv(channels=6), Conv(channels=4, order="norm"), after="relu6"),
        residual(Conv(channels=6), Conv(channels=4, order="norm"), after="hardtanh"),
        # Parameters are float32, features bfloat16.
        residual(Conv(channels=6, act="prelu"), Conv(channels=4, order="norm"), after="prelu"),
    ],
)
def test_networks_that_once_ran_wrong(spec: Spec, dtype: torch.dtype) -> None:
    assert check(spec, [dtype]) == "right"
