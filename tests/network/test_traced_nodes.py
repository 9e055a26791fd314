"""What a node is to pruning, and which convolutions are no sites by their place."""

from torch import Tensor, nn

from runtime_pruning.network.normalising import normalised
from runtime_pruning.network.traced_nodes import TracedNodes

SHAPE = (3, 6, 6)


class Block(nn.Module):
    """A stem, a depthwise layer, a branch onto a stream, a 1x1 shortcut around it, the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.onto = nn.Conv2d(8, 8, 3, padding=1)
        self.around = nn.Conv2d(8, 8, 1)
        self.classes = nn.Conv2d(8, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.depthwise(self.stem(images)).relu()
        x = self.onto(self.inner(x).relu()) + self.around(x)
        return self.classes(x.softmax(1)).mean((2, 3))


def traced() -> TracedNodes:
    net = Block().eval()
    recording, _ = normalised(net, SHAPE)
    return TracedNodes(recording, net)


def test_each_node_is_what_it_mixes() -> None:
    nodes = traced()
    by_name = {node.name: node for node in nodes.nodes}
    kinds = {name: nodes.head_kind(node) for name, node in by_name.items()}
    assert {name: kind for name, kind in kinds.items() if kind} == {
        **dict.fromkeys(("stem", "inner", "onto", "around", "classes"), "convolution"),
        "depthwise": "depthwise",
        "add": "add",
    }
    assert nodes.follower(by_name["relu"]) is not None
    assert nodes.follower(by_name["softmax"]) is None  # it mixes channels
    assert "softmax" in nodes.describe(by_name["softmax"])
    assert nodes.describe(by_name["inner"]) == "Conv2d 'inner'"
    assert nodes.macs[by_name["stem"]] == 36 * 3 * 8 * 9


def test_places_that_are_no_sites_say_why() -> None:
    nodes = traced()
    (logits,) = (node.all_input_nodes[0] for node in nodes.nodes if node.op == "output")
    found = {node.name: why for node, why in nodes.no_sites(logits, streams=True).items()}
    assert found == {
        "stem": "nothing has been seen before it",
        "around": "it is a shortcut around a residual branch",
        "classes": "its channels are the classes",
    }
    whole = {node.name: why for node, why in nodes.no_sites(logits, streams=False).items()}
    assert whole["onto"] == "it ends in a residual add, and streams stay whole"


def test_what_the_classes_come_from_is_found_through_steps_that_keep_channels() -> None:
    nodes = traced()
    by_name = {node.name: node for node in nodes.nodes}
    found = nodes.sources(by_name["add"], through_adds=True)
    assert {node.name for node in found} == {"onto", "around"}
    every = ["stem", "depthwise", "inner", "onto", "around", "classes"]
    assert [node.name for node in nodes.convs()] == every
