# ruff: noqa: D102 (a test's name says what it checks)
"""The contract of a backbone: made prunable, it must run the same in every mode.

In a test file of the plugin::

    from runtime_pruning.testing.network import PrunableNetworkContract

    class TestMyBackbone(PrunableNetworkContract):
        backbone_name = "my-backbone"
        image_shape = (3, 32, 32)

A subclass may set ``num_classes`` and ``groups``, or override `create`.
"""

import copy
import pickle
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning import backbones
from runtime_pruning.cost.macs import MacStepCost, dense_macs, plan_macs
from runtime_pruning.executor.agreement import check_modes
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import Mode, PrunableNetwork, order_channels, trace
from runtime_pruning.network.batch_norm import NORMS, is_conditioned
from runtime_pruning.network.staged_run import MODES

BATCH = 5


class PrunableNetworkContract:
    """Tests that any backbone must pass; pytest collects them in each subclass."""

    backbone_name: ClassVar[str] = ""
    image_shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    groups: ClassVar[int] = 4
    streams: ClassVar[bool] = True  # whether residual streams may be narrow
    conditioned: ClassVar[bool] = False  # batch-norm statistics per width
    _traced: ClassVar[PrunableNetwork]

    def create(self) -> nn.Module:
        """Return the backbone; by default the registered one."""
        return backbones.create(
            self.backbone_name, num_classes=self.num_classes, image_shape=self.image_shape
        )

    @property
    def network(self) -> PrunableNetwork:
        """The network, traced once per test class; tests that change it copy it."""
        suite = type(self)
        if "_traced" not in vars(suite):
            backbone = shake(self.create().double(), self.images(), seed=1)
            network = trace(
                backbone, self.image_shape, groups=self.groups, streams=self.streams
            ).eval()
            suite._traced = spread(network, seed=1) if self.conditioned else network
        return suite._traced

    def images(self, batch: int = BATCH) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        shape = (batch, *self.image_shape)
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def plans(self, batch: int = BATCH, seed: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = (batch, len(self.network.sites))
        return torch.randint(1, self.groups + 1, size, generator=generator)

    @torch.no_grad()
    def test_all_groups_equal_the_plain_backbone(self) -> None:
        network, images_BCHW = self.network, self.images()
        full_BL = torch.full((BATCH, len(network.sites)), self.groups)
        plain_BK = network.backbone(images_BCHW)
        assert plain_BK.std(0).max() > 1e-6, "the logits do not depend on the image"
        for mode in MODES:
            close(network.run(images_BCHW, full_BL, mode=mode).logits_BK, plain_BK)
        close(network(images_BCHW), plain_BK)

    @pytest.mark.parametrize("seed", [3, 4])
    @torch.no_grad()
    def test_sliced_equals_masked(self, seed: int) -> None:
        images_BCHW, plans_BL = self.images(), self.plans(seed=seed)
        sliced = self.network.run(images_BCHW, plans_BL, mode="sliced")
        masked = self.network.run(images_BCHW, plans_BL, mode="masked")
        close(sliced.logits_BK, masked.logits_BK)
        assert not torch.allclose(sliced.logits_BK, self.network(images_BCHW), rtol=1e-6)

    @torch.no_grad()
    def test_executed_macs_equal_analytic_macs(self) -> None:
        network, images_BCHW, plans_BL = self.network, self.images(), self.plans()
        sliced = network.run(images_BCHW, plans_BL, mode="sliced")
        masked = network.run(images_BCHW, plans_BL, mode="masked")
        expected_B = plan_macs(network, network.channels(plans_BL))
        assert sliced.executed_macs_B.tolist() == expected_B.tolist()
        assert masked.executed_macs_B.tolist() == [dense_macs(network)] * BATCH

    @torch.no_grad()
    def test_a_batch_equals_its_images_one_by_one(self) -> None:
        images_BCHW, plans_BL = self.images(), self.plans()
        whole = self.network.run(images_BCHW, plans_BL)
        for image in range(BATCH):
            alone = self.network.run(images_BCHW[image, None], plans_BL[image, None])
            close(alone.logits_BK[0], whole.logits_BK[image])
            assert alone.executed_macs_B[0] == whole.executed_macs_B[image]

    @torch.no_grad()
    def test_features_are_the_same_in_all_modes(self) -> None:
        images_BCHW, plans_BL = self.images(), self.plans()
        runs = [self.network.start(images_BCHW, mode=mode) for mode in MODES]
        for site, width in enumerate(self.network.feature_widths):
            sliced, masked = runs
            assert [run.site for run in runs] == [site, site]
            assert sliced.features_BF.shape == (BATCH, width)
            close(sliced.features_BF, masked.features_BF)
            for run in runs:
                run.advance(plans_BL[:, site])
        assert all(run.finished for run in runs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_deployed_in_every_mode_it_is_the_same(self, dtype: torch.dtype) -> None:
        """Each image on its own plan, all alike, and one image alone."""
        network, images_BCHW = copy.deepcopy(self.network).float(), self.images().float()
        deployed, plans_BL = deploy(network, dtype=dtype, part=BATCH), self.plans()
        for planned_BL in (plans_BL, plans_BL[:1].expand_as(plans_BL)):
            check_modes(deployed, network, images_BCHW, planned_BL)
        check_modes(deployed, network, images_BCHW[:1], plans_BL[:1])

    def test_learning_is_the_same_in_both_modes(self) -> None:
        learnt = {mode: self.learn(mode) for mode in MODES}
        assert learnt["sliced"].keys() == learnt["masked"].keys()
        for name, tensor in learnt["sliced"].items():
            close(tensor, learnt["masked"][name], name)

    def learn(self, mode: Mode) -> dict[str, Tensor]:
        """Return gradients and batch-norm statistics after one backward pass."""
        network = copy.deepcopy(self.network).train()
        for module in network.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.eval()
        labels_B = torch.arange(BATCH) % self.num_classes
        logits_BK = network.run(self.images(), self.plans(), mode=mode).logits_BK
        torch.autograd.backward(functional.cross_entropy(logits_BK, labels_B))
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        return {**gradients, **dict(network.named_buffers())}

    @torch.no_grad()
    def test_ordering_channels_leaves_the_function(self) -> None:
        network, images_BCHW = copy.deepcopy(self.network), self.images()
        before_BK = network(images_BCHW)
        order_channels(network)
        close(network(images_BCHW), before_BK)

    @torch.no_grad()
    def test_it_pickles_and_its_weights_travel(self) -> None:
        images_BCHW, plans_BL = self.images(), self.plans()
        expected_BK = self.network.run(images_BCHW, plans_BL).logits_BK
        other = pickle.loads(pickle.dumps(self.network))
        close(other.run(images_BCHW, plans_BL).logits_BK, expected_BK)
        shake(other.backbone, images_BCHW, seed=5)
        assert not torch.allclose(other.run(images_BCHW, plans_BL).logits_BK, expected_BK)
        other.load_state_dict(self.network.state_dict())
        close(other.run(images_BCHW, plans_BL).logits_BK, expected_BK)

    def test_step_costs_add_up_to_the_plan(self) -> None:
        network, plans_BL = self.network, self.plans()
        cost = MacStepCost(network)
        steps = [cost(site, plans_BL[:, : site + 1]) for site in range(len(network.sites))]
        total_B = plan_macs(network, network.channels(plans_BL)).double() / dense_macs(network)
        close(cost.before + torch.stack(steps).sum(0), total_B)

    def test_group_bounds_rise_to_full_width(self) -> None:
        for site in self.network.sites:
            assert site.bounds[0] == 0
            assert site.bounds[-1] == site.channels
            assert len(set(site.bounds)) == self.groups + 1
            assert all(bound % site.align == 0 for bound in site.bounds[:-1])


@torch.no_grad()
def shake(backbone: nn.Module, images_BCHW: Tensor, seed: int) -> nn.Module:
    """Return the backbone with batch norm and biases drawn at random: zeros would hide mistakes.

    Running statistics are those of the images, so that the logits depend on them.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, NORMS):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.momentum = 1.0
        if isinstance(module, (*NORMS, nn.Conv2d, nn.Linear)) and module.bias is not None:
            module.bias.uniform_(-0.2, 0.3, generator=generator)
    backbone.train()(images_BCHW)
    for module in backbone.modules():
        if isinstance(module, NORMS):
            module.momentum = 0.1
    return backbone.eval()


@torch.no_grad()
def spread(network: PrunableNetwork, seed: int) -> PrunableNetwork:
    """Return the network with batch-norm statistics per width, drawn apart at random."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.condition_batch_norm().modules():
        if isinstance(module, NORMS) and is_conditioned(module):
            for name in ("narrow_means", "narrow_vars"):
                buffer = module.get_buffer(name)
                noise = torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype)
                buffer.mul_(0.5 + noise)
    return network


def close(actual: Tensor, expected: Tensor, what: str = "values") -> None:
    """Fail unless both agree to 1e-5, relative to the largest."""
    scale = float(expected.double().abs().max()) if expected.numel() else 1.0
    allowed = 1e-5 * scale + 1e-12
    torch.testing.assert_close(
        *(actual, expected), rtol=1e-5, atol=allowed, msg=lambda text: f"{what}: {text}"
    )
