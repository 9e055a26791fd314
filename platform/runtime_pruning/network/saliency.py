"""Saliency of channels, image by image, and the policy that runs the salient ones.

A branch per site looks at the pooled input of the site's convolution and tells how salient each of
its output channels is. Channels below the site's threshold are not computed; the others are scaled
by their saliency. Unlike a plan of groups, an image's channels are any subset, not the first ones.
Source: Tang et al., "Manifold Regularized Dynamic Network Pruning", CVPR 2021, and its release
(branches without squeeze on narrow layers, saliency clamped, kept channels scaled).

Dimensions: B images, C channels of a site, F channels of its input, H hidden, L sites.
"""

from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.traced import TracedNetwork

NARROW = 80  # channels of a site below which its branch is not squeezed, as in the release
OPEN = -1.0  # a threshold that lets every saliency above zero through


class SaliencyBranch(nn.Module):
    """Pooled input -> squeeze -> ReLU -> one saliency per output channel, in [0, ``most``].

    Args:
        inputs: F.
        outputs: C.
        hidden: H.
        most: saliencies are clamped to this.
        init_scale: of the last layer's initial weights, of which 1 is Kaiming's; its biases are 1,
            so that a small scale leaves the backbone's function nearly as it was.

    Attributes:
        undecayed: read by the trainer: no weight decay here.
    """

    undecayed = True

    def __init__(
        self, inputs: int, outputs: int, *, hidden: int, most: float, init_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.most = most
        self.squeeze = nn.Linear(inputs, hidden, bias=False)
        self.expand = nn.Linear(hidden, outputs)
        nn.init.kaiming_normal_(self.squeeze.weight)
        nn.init.kaiming_normal_(self.expand.weight)
        with torch.no_grad():
            self.expand.weight.mul_(init_scale)
            self.expand.bias.fill_(1.0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return self.squeeze.weight.numel() + self.expand.weight.numel()

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return ``saliency_BC``, float32, whatever the type of the features."""
        with torch.autocast(features_BF.device.type, enabled=False):
            code_BH = functional.relu(self.squeeze(features_BF.float()))
            saliency_BC: Tensor = functional.relu(self.expand(code_BH)).clamp(max=self.most)
        return saliency_BC


class SubsetPolicy(nn.Module):
    """Each image runs the channels of a site whose saliency reaches the site's threshold.

    A channel of saliency zero would be multiplied by zero: it is not run, whatever the threshold.

    Args:
        branches: one per site.
        name: for reports.

    Attributes:
        thresholds_L: float32; not trained.
    """

    thresholds_L: Tensor

    def __init__(self, branches: list[SaliencyBranch], name: str = "salient channels") -> None:
        super().__init__()
        if not branches:
            raise ConfigError("A policy of salient channels needs a branch per site, but got none.")
        self.name = name
        self.branches = nn.ModuleList(branches)
        self.register_buffer("thresholds_L", torch.full((len(branches),), OPEN))

    @property
    def macs_per_image(self) -> int:
        """What the branches cost, over all sites."""
        return sum(self.branch(site).macs for site in range(len(self.branches)))

    def branch(self, site: int) -> SaliencyBranch:
        """Return a site's branch."""
        return cast(SaliencyBranch, self.branches[site])

    def saliency(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``saliency_BC`` of a site, before its threshold."""
        saliency_BC: Tensor = self.branches[site](features_BF)
        return saliency_BC

    def kept(self, site: int, saliency_BC: Tensor) -> Tensor:
        """Return ``kept_BC``, bool: the channels that run."""
        return (saliency_BC >= self.thresholds_L[site]) & (saliency_BC > 0)

    def start(self, batch: int) -> NoReturn:
        """Refuse: subsets of channels are no plan of group counts.

        Raises:
            ConfigError: always; `PrunableNetwork.execute` runs such a policy.
        """
        raise ConfigError(
            f"The policy {self.name!r} chooses subsets of channels, which are no counts of groups: "
            "it is run by `execute`, and has no plan that could be shuffled or searched."
        )

    def check_fits(self, network: TracedNetwork) -> None:
        """Raise unless there is a branch of the right shape for each site of a network.

        Raises:
            ConfigError: names the first site that has none.
        """
        shapes = [
            (self.branch(i).squeeze.in_features, self.branch(i).expand.out_features)
            for i in range(len(self.branches))
        ]
        wanted = [(site.in_channels, site.channels) for site in network.sites]
        if shapes != wanted:
            raise ConfigError(
                "A policy of salient channels needs a branch per site, from its input channels to "
                f"its output channels: {wanted}, but got {shapes}."
            )


def saliency_policy(
    network: TracedNetwork,
    *,
    squeeze: int = 2,
    most: float = 10.0,
    init_scale: float = 0.1,
    seed: int = 0,
) -> SubsetPolicy:
    """Return a policy with new branches for a network's sites, that still runs all channels.

    Args:
        network: the sites' channels are what the branches look at.
        squeeze: by what hidden layers are narrower than their outputs, on sites that are wide.
        most: see `SaliencyBranch`.
        init_scale: likewise.
        seed: of the initial weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = [
            SaliencyBranch(
                site.in_channels,
                site.channels,
                hidden=site.channels // squeeze if site.channels >= NARROW else site.channels,
                most=most,
                init_scale=init_scale,
            )
            for site in network.sites
        ]
    return SubsetPolicy(branches)
