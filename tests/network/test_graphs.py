"""Captured execution: what is captured and when, on any machine; and CUDA graphs, where there are.

Off CUDA "captured" work is the plain call, done again between the same buffers.
"""

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.network import DeployedNetwork, PrunableNetwork, deploy, trace
from runtime_pruning.network.break_even import interleaved
from runtime_pruning.network.graphs import (
    MOST_SEEN,
    SIGHTINGS,
    SIGHTINGS_FULL,
    SLOWER,
    Graphs,
    Ledger,
    Piece,
)
from runtime_pruning.network.kernels import fastest
from runtime_pruning.testing.network import shake

SHAPES = {"digits-cnn": (1, 8, 8), "mcifarnet": (3, 16, 16), "resnet20-cifar": (3, 16, 16)}

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def traced(name: str) -> PrunableNetwork:
    backbone = backbones.create(name, num_classes=10, image_shape=SHAPES[name], seed=1)
    return trace(shake(backbone, torch.rand(8, *SHAPES[name]), seed=1), SHAPES[name]).eval()


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual.cpu(), expected.cpu(), rtol=0, atol=tolerance * scale)


class Repeats:
    """Repeats work by doing it; fails or is slower where it is told so."""

    def __init__(self, *, faster: bool = True, error: Exception | None = None) -> None:
        self.faster, self.error = faster, error
        self.recorded = self.replayed = 0
        self.is_busy = False

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        work()
        self.recorded += 1
        return partial(self.replay, work)

    def replay(self, work: Callable[[], None]) -> None:
        self.replayed += 1
        work()

    def pays(self, captured: Callable[[], object], plain: Callable[[], object]) -> bool:
        captured()
        plain()
        return self.faster

    def busy(self) -> bool:
        return self.is_busy


def captured(network: PrunableNetwork, recorder: Repeats, most: int = 64) -> DeployedNetwork:
    """Return a deployed network on the CPU that captures."""
    deployed = deploy(network, part=8)
    deployed.graphs = Graphs(recorder, most)
    for batch in (1, 2):
        deployed.programs(batch).graphs = deployed.graphs
    return deployed


class MeanPolicy:
    """Looks at the features, so that images differ in their plans."""

    name = "mean"
    macs_per_image = 0

    def start(self, batch: int) -> "MeanPolicy":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        return ((features_BF.double().mean(1) * 1e3).long() + site) % 4 + 1


# When something is captured


def test_it_is_due_when_it_has_been_seen_a_few_times() -> None:
    ledger: Ledger[str] = Ledger(most=1)
    assert [ledger.due(("a",)) for _ in range(SIGHTINGS)] == [False] * (SIGHTINGS - 1) + [True]
    ledger.keep(("a",), "A")
    assert ledger.find(("a",)) == "A"
    assert ledger.find(("b",)) is None
    # Another has to go for this one.
    assert not any(ledger.due(("b",)) for _ in range(SIGHTINGS_FULL - 1))
    assert ledger.due(("b",))
    ledger.keep(("b",), "B")
    assert list(ledger.kept.values()) == ["B"]
    assert not ledger.due(("a",))  # counted from nothing again


def test_the_least_recently_used_goes_first() -> None:
    ledger: Ledger[int] = Ledger(most=3)
    for number in range(3):
        ledger.keep((number,), number)
    assert ledger.find((0,)) == 0
    ledger.keep((3,), 3)
    assert list(ledger.kept) == [(2,), (0,), (3,)]


def test_what_was_refused_is_never_due_and_the_reason_is_known() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.refuse(("a",), "it waits")
    assert not any(ledger.due(("a",)) for _ in range(SIGHTINGS_FULL))
    assert ledger.refused == {("a",): "it waits"}


def test_what_comes_once_leaves_nothing_behind() -> None:
    ledger: Ledger[int] = Ledger()
    for number in range(2 * MOST_SEEN + 1):
        assert not ledger.due((number,))
        ledger.refuse((-number,), "")
    assert len(ledger._seen) <= MOST_SEEN
    assert len(ledger.refused) <= MOST_SEEN


# Which is faster


class Device:
    """Work is launched in no time, and takes its time until it is waited for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def launch(self, seconds: float) -> None:
        self.seconds += seconds

    def wait(self) -> None:
        time.sleep(self.seconds)
        self.seconds = 0.0


def test_calls_are_timed_until_the_device_is_done() -> None:
    device = Device()
    slow, fast = partial(device.launch, 0.02), partial(device.launch, 0.001)
    assert fastest([slow, fast], wait=device.wait) is fast
    assert fastest([fast, slow], wait=device.wait) is fast
    seconds = interleaved({"slow": slow}, rounds=2, least_seconds=0.0, wait=device.wait)
    assert min(seconds["slow"]) >= 0.02


def test_what_is_no_faster_captured_is_not_kept() -> None:
    graphs = Graphs(Repeats(faster=False))
    state = [torch.ones(2), None]
    for _ in range(2 * SIGHTINGS):
        graphs.run("double", Piece([double], [0], [1]), state)
    assert not graphs.ledger.kept
    assert list(graphs.ledger.refused.values()) == [SLOWER]


# Pieces


def double(state: list[Tensor]) -> None:
    state[1] = state[0] * 2


def double_in_place(state: list[Tensor]) -> None:
    state[1] = state[0].mul_(2)


@pytest.mark.parametrize("step", [double, double_in_place])
def test_a_piece_writes_the_same_captured_and_not(step: Callable[[list[Tensor]], None]) -> None:
    recorder = Repeats()
    graphs = Graphs(recorder)
    for number in range(2 * SIGHTINGS):
        state = [torch.full((2,), float(number)), None]
        graphs.run("double", Piece([step], [0], [1]), state)
        assert state[1].tolist() == [2.0 * number] * 2
    assert recorder.recorded == 1
    assert recorder.replayed > SIGHTINGS


def test_forms_are_captured_one_by_one() -> None:
    graphs = Graphs(Repeats())
    for form in (torch.ones(2), torch.ones(3), torch.ones(3, dtype=torch.int64)) * 2 * SIGHTINGS:
        state = [form, None]
        graphs.run("double", Piece([double], [0], [1]), state)
        assert torch.equal(state[1], form * 2)
        assert state[1].dtype == form.dtype
    assert len(graphs.ledger.kept) == 3


def test_what_is_no_tensor_is_not_captured() -> None:
    graphs = Graphs(Repeats())
    for _ in range(2 * SIGHTINGS):
        state = [7, None]
        graphs.run("double", Piece([double], [0], [1]), state)
        assert state[1] == 14
    assert "no tensor" in next(iter(graphs.ledger.refused.values()))


def test_nothing_is_captured_or_replayed_where_it_must_not_be() -> None:
    recorder = Repeats()
    graphs, state = Graphs(recorder), [torch.ones(2), None]
    run = partial(graphs.run, "double", Piece([double], [0], [1]), state)
    for _ in range(2 * SIGHTINGS):
        graphs.without(run)()
    recorder.is_busy = True
    for _ in range(2 * SIGHTINGS):
        run()
    assert recorder.recorded == 0
    recorder.is_busy = False
    for _ in range(SIGHTINGS):
        run()
    assert recorder.recorded == 1


# Networks


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_a_captured_network_returns_what_the_network_returns(name: str) -> None:
    network, recorder = traced(name), Repeats()
    deployed = captured(network, recorder)
    generator = torch.Generator().manual_seed(0)
    plans = [[4] * len(network.sites)]
    plans += torch.randint(1, 5, (3, len(network.sites)), generator=generator).tolist()
    held: list[tuple[Tensor, Tensor]] = []
    for _ in range(SIGHTINGS + 3):
        for plan in plans:
            for batch in (1, 3):
                images_BCHW = torch.rand(batch, *network.image_shape, generator=generator)
                plans_BL = torch.tensor([plan] * batch)
                execution = deployed.run(images_BCHW, plans_BL)
                expected = network.run(images_BCHW, plans_BL)
                assert torch.equal(execution.executed_macs_B, expected.executed_macs_B)
                held.append((execution.logits_BK, expected.logits_BK))
    assert recorder.recorded == 2 * len(plans)
    for logits_BK, expected_BK in held:  # later runs have not written over earlier results
        close(logits_BK, expected_BK)


@pytest.mark.parametrize("most", [64, 5])
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_captured_stages_decide_as_the_network_does(name: str, most: int) -> None:
    network, recorder = traced(name), Repeats()
    deployed, policy = captured(network, recorder, most), MeanPolicy()
    images_BCHW = torch.rand(6, *network.image_shape, generator=torch.Generator().manual_seed(3))
    expected = network.execute(images_BCHW, policy, mode="sliced")
    assert len(expected.groups_BL.unique(dim=0)) > 1
    held = []
    for turn in range(SIGHTINGS + 3):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(turn))
        found = deployed.execute(images_BCHW[order], policy, mode="image")
        assert torch.equal(found.groups_BL, expected.groups_BL[order])
        assert torch.equal(found.executed_macs_B, expected.executed_macs_B[order])
        held.append((found.logits_BK, expected.logits_BK[order]))
    assert recorder.replayed > 2 * recorder.recorded > 0
    assert deployed.graphs is not None
    assert len(deployed.graphs.ledger.kept) <= most
    for logits_BK, expected_BK in held:
        close(logits_BK, expected_BK)


@torch.no_grad()
def test_a_capture_that_fails_loses_nothing() -> None:
    network, recorder = traced("digits-cnn"), Repeats(error=RuntimeError("a step waits"))
    deployed, policy = captured(network, recorder), MeanPolicy()
    image_1CHW = torch.rand(1, *network.image_shape)
    expected_1K = network(image_1CHW)
    decided = network.execute(image_1CHW, policy, mode="sliced")
    for _ in range(2 * SIGHTINGS):
        close(deployed.dense(image_1CHW), expected_1K)
        close(deployed.execute(image_1CHW, policy).logits_BK, decided.logits_BK)
    assert deployed.graphs is not None
    assert not deployed.graphs.ledger.kept
    assert set(deployed.graphs.ledger.refused.values()) == {"a step waits"}


def test_other_errors_are_not_taken_for_failed_captures() -> None:
    graphs = Graphs(Repeats(error=TypeError("a bug")))
    run = partial(graphs.run, "double", Piece([double], [0], [1]), [torch.ones(2), None])
    for _ in range(SIGHTINGS - 1):
        run()
    with pytest.raises(TypeError, match="a bug"):
        run()


# CUDA


def on_gpu(network: PrunableNetwork) -> tuple[DeployedNetwork, Graphs]:
    """Return a deployed network, and what it captures."""
    deployed = deploy(network, device="cuda")
    assert deployed.graphs is not None
    return deployed, deployed.graphs


def always(captured: Callable[[], object], plain: Callable[[], object]) -> bool:
    """Say that a capture pays, so that it is kept on any device."""
    return True


@on_cuda
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("batch", [1, 5])
@torch.no_grad()
def test_graphs_return_what_call_by_call_returns(
    monkeypatch: pytest.MonkeyPatch, name: str, batch: int
) -> None:
    deployed, graphs = on_gpu(traced(name))
    monkeypatch.setattr(graphs._recorder, "pays", always)
    sites = len(deployed.network.sites)
    plans_PBL = torch.randint(1, 5, (3, 1, sites)).expand(-1, batch, -1)
    held = []
    for _ in range(SIGHTINGS + 4):
        for plans_BL in plans_PBL:
            images_BCHW = torch.rand(batch, *deployed.network.image_shape, device="cuda")
            plain = graphs.without(partial(deployed.run, images_BCHW, plans_BL))()
            execution = deployed.run(images_BCHW, plans_BL)
            held.append((execution.logits_BK, plain.logits_BK))
            assert torch.equal(execution.executed_macs_B, plain.executed_macs_B)
    assert len(graphs.ledger.kept) == 3, graphs.ledger.refused
    for logits_BK, expected_BK in held:
        close(logits_BK, expected_BK, tolerance=1e-3)


@on_cuda
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_decided_graphs_return_what_call_by_call_returns(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    deployed, graphs = on_gpu(traced(name))
    monkeypatch.setattr(graphs._recorder, "pays", always)
    images_BCHW, policy = torch.rand(6, *deployed.network.image_shape, device="cuda"), MeanPolicy()
    for _ in range(SIGHTINGS + 3):
        found = deployed.execute(images_BCHW, policy, mode="image")
        plain = graphs.without(partial(deployed.run, images_BCHW, found.groups_BL))()
        close(found.logits_BK, plain.logits_BK, tolerance=1e-3)
        assert torch.equal(found.executed_macs_B, plain.executed_macs_B)
    assert graphs.ledger.kept, graphs.ledger.refused


@on_cuda
@torch.no_grad()
def test_graphs_that_are_dropped_leave_the_others_right(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed, graphs = on_gpu(traced("resnet20-cifar"))
    monkeypatch.setattr(graphs._recorder, "pays", always)
    graphs.ledger.most = 2
    image_1CHW = torch.rand(1, *deployed.network.image_shape, device="cuda")
    for groups in (1, 2, 3):
        static = deployed.static([groups] * len(deployed.network.sites))
        for _ in range(SIGHTINGS_FULL + 2):
            close(static(image_1CHW), graphs.without(static)(image_1CHW), tolerance=1e-3)
    assert len(graphs.ledger.kept) == 2


class Waits(nn.Module):
    """Looks at a number on the CPU, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.linear(self.second(torch.relu(self.first(images))).mean((2, 3)))
        return logits * waited(logits)


@torch.fx.wrap
def waited(logits: Tensor) -> float:
    return 1.0 + 0.0 * logits.sum().item()


@on_cuda
@torch.no_grad()
def test_a_network_that_waits_runs_call_by_call() -> None:
    shape = (1, 8, 8)
    network = trace(Waits(), shape, groups=2).eval()
    deployed, graphs = on_gpu(network)
    image_1CHW = torch.rand(1, *shape)
    expected_1K = network(image_1CHW)
    for _ in range(2 * SIGHTINGS):
        close(deployed.dense(image_1CHW.cuda()), expected_1K, tolerance=1e-2)
    assert not graphs.ledger.kept
    assert "captur" in next(iter(graphs.ledger.refused.values()))


@on_cuda
@torch.no_grad()
def test_a_user_may_capture_the_network() -> None:
    deployed, _ = on_gpu(traced("digits-cnn"))
    image_1CHW = torch.rand(1, *deployed.network.image_shape, device="cuda")
    expected_1K = deployed.dense(image_1CHW)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(2 * SIGHTINGS):
            logits_1K = deployed.dense(image_1CHW)
    graph.replay()
    close(logits_1K, expected_1K, tolerance=1e-3)
