"""What answers wrongly is not timed; what is timed is held against the reference."""

from typing import Any

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.deploy import Bundle, timing
from runtime_pruning.errors import ContractError
from runtime_pruning.executor import DeployedNetwork, deploy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.saliency import saliency_policy
from runtime_pruning.timing.comparison import Figures, Interval, Measurement, Times
from runtime_pruning.timing.contamination import NoiseReport
from runtime_pruning.timing.device import this_device

SHAPE = (1, 8, 8)


def test_a_network_whose_modes_are_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=3)
    network = trace(backbone, SHAPE, groups=2, align=4).eval()

    def deploy_wrong(own: PrunableNetwork, **settings: Any) -> DeployedNetwork:
        deployed = deploy(own, **settings)
        with torch.no_grad():
            own.backbone.linear.bias.add_(1.0)
        return deployed

    monkeypatch.setattr(timing, "deploy", deploy_wrong)
    monkeypatch.setattr(timing, "measure", None)  # timing anything would raise something else
    bundle = Bundle(network=network, policy=FixedPolicy(network.uniform(1)), manifest={})
    with pytest.raises(ContractError, match=r"Mode '\w+' \(float32, batch 8\) must give the log"):
        timing.time_bundle(bundle, torch.rand(8, *SHAPE), [1])


@pytest.fixture
def bundle() -> Bundle:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=3)
    network = trace(backbone, SHAPE, groups=2, align=4).eval()
    return Bundle(network=network, policy=FixedPolicy(network.uniform(1)), manifest={})


def told(verdict: Any, figures: Figures | None) -> Measurement:
    signs = NoiseReport(0.0, 0.0, None, None, None, 0.0, 0.0)
    return Measurement(verdict, figures, signs, () if figures else ("noise.",), 10)


def test_speed_ups_are_against_the_reference(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(8.0, 8.0, 8.0, 8.0)
    figures = Figures(Interval(1.0, 2.0, 3.0), Interval(1.0, 2.0, 3.0), times, times)
    ran = []

    def measure(dense: Any, candidate: Any, *, rounds: int) -> Measurement:
        deployed = (dense.args[0].__self__, candidate.args[0].func.__self__)
        ran.extend(each.network.backbone.linear.bias for each in deployed)
        return told("faster", figures)

    monkeypatch.setattr(timing, "measure", measure)
    other = trace(
        backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=4), SHAPE, groups=2
    ).eval()
    (timed,) = timing.time_bundle(bundle, torch.rand(8, *SHAPE), [4], reference=other)
    assert torch.equal(ran[0], other.backbone.linear.bias)
    assert torch.equal(ran[1], bundle.network.backbone.linear.bias)
    facts = timed.on(this_device())
    assert facts.speedup == (1.0, 2.0, 3.0)
    assert facts.dense_ms == 4.0  # 8 ms for all 8 images, two calls of 4
    assert facts.latency_ms is not None
    assert facts.latency_ms["p50"] <= facts.latency_ms["p99"]


def test_a_contaminated_timing_has_no_latency(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "measure", lambda *_, **__: told("contaminated", None))
    (timed,) = timing.time_bundle(bundle, torch.rand(8, *SHAPE), [4])
    facts = timed.on(this_device())
    assert (facts.verdict, facts.latency_ms, facts.dense_ms) == ("contaminated", None, None)
    assert facts.reasons == ("noise.",)


def test_quantiles_are_over_the_full_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five images of 1, 2 ms in batches of two, and a rest that would take an hour.
    spent, now = {0: 1e-3, 2: 2e-3, 4: 3600.0}, [0.0]

    def run(part: torch.Tensor) -> None:
        now[0] += spent[int(part[0])]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    quantiles = timing.latency_quantiles(run, torch.split(torch.arange(5), 2))
    expected = {"p50": 1.5, "p90": 2.0, "p95": 2.0, "p99": 2.0}
    assert quantiles == {name: pytest.approx(value) for name, value in expected.items()}


def test_salient_channels_are_timed_in_a_mode_of_theirs(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "measure", lambda *_, **__: told("contaminated", None))
    policy = saliency_policy(bundle.network, init_scale=1.0).eval()
    policy.thresholds_L.fill_(1.0)
    own = Bundle(network=bundle.network, policy=policy, manifest={})
    images_NCHW = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    (timed,) = timing.time_bundle(own, images_NCHW, [4])
    assert timed.mode in ("subset", "gathered", "masked")
    with torch.no_grad():
        spent_B = bundle.network.execute(images_NCHW, policy).total_macs_B
    if timed.mode != "masked":  # which executes all
        expected = dense_macs(bundle.network) / float(spent_B.double().mean())
        assert timed.macs_speedup == pytest.approx(expected)
