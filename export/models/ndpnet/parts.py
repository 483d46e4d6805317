"""The parts of NDP-Net in its whole graph, named as the steps of its other programs are."""

import re
from typing import Any

RECONSTRUCTION = "reconstruction"
# Names as PyTorch's exporter makes them: /module/module/Operator. RBFRM is written into the whole network's forward, so
# its nodes lie at the top, those that cut the reference into patches under /LkK.
NAMES = (
    (re.compile(r"/encoder/"), "encoder"),
    (re.compile(r"/(ffm\.\d+|decoder)/"), "decoder"),
    (re.compile(r"/(\dk\d/.*|[^/]+)$"), "rbfrm"),
)
AFTER = re.compile(r"/encoder(_\d+)?/")  # its first levels on the reconstruction: the head


def find_node_stages(model: Any) -> dict[int, str]:
    """Return the part of each node of an onnx.ModelProto that a rule fits, by its number in the graph.

    What the reconstruction does not depend on is head and segmentation: names alone cannot tell its nodes at the top
    from RBFRM's.
    """
    stages: dict[int, str] = {}
    needed = {RECONSTRUCTION}
    for number, node in reversed(list(enumerate(model.graph.node))):
        if needed.isdisjoint(node.output):
            stages[number] = "head" if AFTER.match(node.name) else "segmentation"
        else:
            needed.update(node.input)
            for pattern, stage in NAMES:
                if pattern.match(node.name):
                    stages[number] = stage
    return stages
