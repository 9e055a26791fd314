"""A deployed network asks a deployed decision network: the same plans, logits and MACs."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import Cell, DecisionConfig, DecisionNetwork
from runtime_pruning.agents.deployed_decision import CompiledChooser, TorchChooser
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.executor import deploy
from runtime_pruning.executor.batching.plans import PolicyDecider
from runtime_pruning.network import PrunableNetwork, trace

SHAPE = (3, 16, 16)


def network(name: str, *, streams: bool, shape: tuple[int, int, int] = SHAPE) -> PrunableNetwork:
    backbone = backbones.create(name, num_classes=10, image_shape=shape, seed=1)
    return trace(backbone, shape, groups=4, align=4, streams=streams).eval()


def policy(traced: PrunableNetwork, cell: Cell, settled: int = 0) -> DecisionPolicy:
    """An untrained policy whose features are standardised, so that images differ in their plans."""
    torch.manual_seed(2)
    decision = DecisionNetwork(
        DecisionConfig(
            feature_widths=traced.feature_widths,
            groups=4,
            encoder=16,
            hidden=16,
            cell=cell,
            decides_from=settled,
        )
    )
    seen: list[torch.Tensor] = []
    run = traced.start(torch.rand(64, *traced.image_shape), mode="masked")
    widest = max(traced.feature_widths)
    while not run.finished:
        features_BF = run.features_BF
        seen.append(torch.nn.functional.pad(features_BF, (0, widest - features_BF.shape[1])))
        run.advance(torch.randint(1, 5, (64,)))
    decision.standardise(torch.stack(seen, 1))
    return DecisionPolicy(decision, penalty=0.3)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("name", "streams"), [("mcifarnet", True), ("resnet20-cifar", False)])
@torch.inference_mode()
def test_decisions_are_those_of_the_plain_network(name: str, streams: bool, cell: Cell) -> None:
    traced = network(name, streams=streams)
    chosen = policy(traced, cell)
    images_BCHW = torch.rand(12, *SHAPE)
    expected = traced.execute(images_BCHW, chosen, mode="sliced")
    assert len(expected.groups_BL.unique(dim=0)) > 1
    deployed = deploy(traced)
    penalties = len(traced.sites) * chosen.network.config.encoder  # folded into the table
    for mode in (*deployed.modes, "auto"):
        found = deployed.execute(images_BCHW, chosen, mode=mode)
        assert torch.equal(found.groups_BL, expected.groups_BL), mode
        torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-3, atol=1e-4)
        assert torch.equal(found.policy_macs_B, expected.policy_macs_B - penalties)
        if found.mode != "dense":
            assert torch.equal(found.executed_macs_B, expected.executed_macs_B), mode
    for mode in ("auto", *(mode for mode in ("image", "ragged") if mode in deployed.modes)):
        alone = deployed.execute(images_BCHW[:1], chosen, mode=mode)
        assert torch.equal(alone.groups_BL, expected.groups_BL[:1]), mode
        assert torch.equal(alone.executed_macs_B, expected.executed_macs_B[:1]), mode


@pytest.mark.parametrize(("threads", "part"), [(1, 8), (1, 19), (2, 19)])
@pytest.mark.parametrize("settled", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_decisions_between_compiled_calls_are_those_that_are_asked_for(
    dtype: torch.dtype, settled: int, threads: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(threads)
    traced = network("resnet20-cifar", streams=False)
    chosen = policy(traced, "gru", settled).deploy()
    deployed = deploy(traced, dtype=dtype, part=part)
    if "ragged" not in deployed.modes:
        pytest.skip("needs a compiler and an x86 CPU")
    images_BCHW = torch.rand(19, *SHAPE)
    between = deployed.execute(images_BCHW, chosen, mode="ragged")
    assert (between.groups_BL[:, :settled] == 1).all()
    assert len(between.groups_BL[:, settled:].unique(dim=0)) > 1
    asked: list[int] = []
    choose = CompiledChooser.choose

    def choosing(self: CompiledChooser, site: int, features_BF: torch.Tensor) -> torch.Tensor:
        asked.append(site)
        return choose(self, site, features_BF)

    monkeypatch.setattr(CompiledChooser, "choose", choosing)
    monkeypatch.setattr(PolicyDecider, "compiled", None)
    expected = deployed.execute(images_BCHW, chosen, mode="ragged")
    assert asked == list(range(len(traced.sites))) * math.ceil(19 / part)
    assert torch.equal(between.groups_BL, expected.groups_BL)
    assert torch.equal(between.logits_BK, expected.logits_BK)
    assert torch.equal(between.executed_macs_B, expected.executed_macs_B)


@pytest.mark.parametrize("settled", [0, 2])
@pytest.mark.parametrize("threads", [2, 3])
@torch.inference_mode()
def test_threads_share_the_means_of_large_feature_maps(threads: int, settled: int) -> None:
    shape = (3, 32, 31)  # rows that threads cannot share evenly
    traced = network("mcifarnet", streams=False, shape=shape)
    chosen = policy(traced, "gru", settled)
    deployed = deploy(traced)
    image_1CHW = torch.rand(1, *shape)
    expected = traced.execute(image_1CHW, chosen, mode="sliced")
    assert len(expected.groups_BL.unique()) > 2
    torch.set_num_threads(threads)
    found = deployed.execute(image_1CHW, chosen)
    assert torch.equal(found.groups_BL, expected.groups_BL)
    torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("batch", [1, 9])
@torch.no_grad()
def test_the_macs_of_deciding_are_those_that_torch_counts(batch: int, cell: Cell) -> None:
    traced = network("mcifarnet", streams=True)
    fast = policy(traced, cell).deploy()
    chooser = TorchChooser(fast, batch)
    with FlopCounterMode(display=False) as counter:
        for site, width in enumerate(traced.feature_widths):
            chooser.choose(site, torch.rand(batch, width))
    assert counter.get_total_flops() == 2 * batch * fast.macs_per_image
    execution = deploy(traced).execute(torch.rand(batch, *SHAPE), fast)
    assert execution.policy_macs_B.tolist() == [fast.macs_per_image] * batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch", [1, 16])  # a compiled call where there is one, and a few
@torch.inference_mode()
def test_a_policy_on_the_cpu_decides_for_a_network_on_cuda(batch: int) -> None:
    traced = network("mcifarnet", streams=True)
    images_BCHW = torch.rand(batch, *SHAPE)
    found = deploy(traced, device="cuda").execute(images_BCHW, policy(traced, "gru"))
    expected = traced.run(images_BCHW, found.groups_BL)
    torch.testing.assert_close(found.logits_BK.cpu(), expected.logits_BK, rtol=1e-2, atol=1e-2)
