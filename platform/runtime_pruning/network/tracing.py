"""From a plain CNN to a prunable network: recorded, made plain, cut into units, and verified."""

from torch import nn

from runtime_pruning.network.admission import admit
from runtime_pruning.network.normalising import normalised
from runtime_pruning.network.partitioning import partition
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.verification import verify


def trace(
    backbone: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    groups: int = 4,
    align: int = 8,
    streams: bool = True,
) -> PrunableNetwork:
    """Return the backbone made prunable; it owns the backbone's modules, it does not copy them.

    What cannot be pruned stays whole; ``network.graph.no_sites`` says why. The network is run
    against the plain backbone, in both modes, before it is returned.

    Args:
        backbone: takes images of shape (B, C, H, W), returns logits of shape (B, K).
        image_shape: (C, H, W).
        groups: how many consecutive blocks of channels each site is cut into.
        align: multiple to which group bounds keep; halved at a site until the groups fit.
        streams: whether convolutions that end in a residual add are sites, too. Without them every
            image's stream is whole: half the sites of a ResNet, and statistics that do not vary
            with the plan.

    Raises:
        TracingError: the backbone cannot be made prunable; the message names the node.
    """
    admit(backbone)
    channels, height, width = image_shape
    shape = (channels, height, width)
    recording, calls = normalised(backbone, shape)
    graph = partition(recording, backbone, streams=streams, groups=groups, calls=calls)
    network = PrunableNetwork(backbone, shape, graph, groups=groups, align=align)
    verify(network)
    return network
