"""Which part of NDP-Net a node of a bundle's graph belongs to, and a layer that a backend made of nodes.

The parts are a record's: encoder, attention (RBFRM on levels 3 to 5), decoder (FFM and decoder), segmentation (the
encoder's first levels on the reconstruction, then MSDSM and eq. 11).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ndp_rt.errors import InputError
from ndp_rt.evaluate import record

ENCODER, ATTENTION, DECODER, SEGMENTATION, OTHER = "encoder", "attention", "decoder", "segmentation", "other"
ENGINE = "engine"  # what is not split further
STAGES = (ENCODER, ATTENTION, DECODER, SEGMENTATION)
# A graph of one stage is that stage, whatever its nodes are called.
GRAPHS = {"encoder": ENCODER, "decoder": DECODER, "head": SEGMENTATION, "segmentation": SEGMENTATION}
RECONSTRUCTION = "reconstruction"
# Names as PyTorch's exporter makes them: /module/module/Operator. RBFRM is written into the whole network's forward, so
# its nodes lie at the top, those that cut the reference into patches under /LkK.
NAMES = (
    (re.compile(r"/encoder/"), ENCODER),
    (re.compile(r"/(ffm\.\d+|decoder)/"), DECODER),
    (re.compile(r"/(\dk\d/.*|[^/]+)$"), ATTENTION),
)
# A backend goes on after a node's or a tensor's name with one of these: "/Conv/WithoutBiases", "Relu_output_0_nchwc".
BOUNDARIES = "/_"


def find_node_stages(model: Any) -> dict[int, str]:
    """Return the stage of each node, by its number in the graph.

    What the reconstruction does not depend on is segmentation: the names alone cannot tell its nodes at the top from
    RBFRM's. A node that no rule fits is OTHER, and so is every node of a graph without a reconstruction.

    Args:
        model: an onnx.ModelProto, its nodes in topological order: of the whole network, or of one stage.
    """
    graph = model.graph
    if graph.name in GRAPHS:
        return dict.fromkeys(range(len(graph.node)), GRAPHS[graph.name])
    if all(RECONSTRUCTION not in node.output for node in graph.node):
        return dict.fromkeys(range(len(graph.node)), OTHER)
    needed, stages = {RECONSTRUCTION}, {}
    for number in reversed(range(len(graph.node))):
        node = graph.node[number]
        if needed.isdisjoint(node.output):
            stages[number] = SEGMENTATION
        else:
            needed.update(node.input)
            stages[number] = next((stage for pattern, stage in NAMES if pattern.match(node.name)), OTHER)
    return stages


def name_stages(model: Any) -> dict[str, str]:
    """Return the stage of every name that a backend may derive a layer's from: nodes, their outputs, the inputs."""
    stages = find_node_stages(model)
    named: dict[str, str] = {}
    for number, node in enumerate(model.graph.node):
        for name in (node.name, *node.output):
            if name:
                named[name] = stages[number]
        for name in node.input:  # an input of the graph belongs to its first reader
            if name:
                named.setdefault(name, stages[number])
    return named


def find_layer_stages(layers: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    """Return the stage of every layer, by its name.

    A layer has the stage of the longest known name that its own begins with. One that begins with none (converted
    layouts, operators that a backend made up) has that of its neighbours where both agree, and is OTHER elsewhere.

    Args:
        layers: names in the order in which they run.
        named: from `name_stages`.
    """
    names = list(layers)
    found = [_find_longest(name, named) for name in names]
    stages = {}
    for index, name in enumerate(names):
        before = next((stage for stage in reversed(found[:index]) if stage is not None), None)
        after = next((stage for stage in found[index + 1 :] if stage is not None), None)
        around = {stage for stage in (before, after) if stage is not None}
        stages[name] = found[index] or (around.pop() if len(around) == 1 else OTHER)
    return stages


def sum_by_stage(layers_ms: Mapping[str, float], named: Mapping[str, str]) -> dict[str, float]:
    """Return the milliseconds of each stage, those of OTHER where there are any.

    Args:
        layers_ms: by layer, in the order in which they run.
        named: from `name_stages`.

    Raises:
        InputError: there is no layer, or none took any time.
    """
    if not any(value > 0 for value in layers_ms.values()):
        raise InputError(f"{len(layers_ms)} layers took 0 ms together. Profile more runs.")
    stages = find_layer_stages(layers_ms, named)
    sums: dict[str, float] = {}
    for name, value in layers_ms.items():
        sums[stages[name]] = sums.get(stages[name], 0.0) + value
    return {stage: sums[stage] for stage in (*STAGES, OTHER) if stage in sums}


def _find_longest(layer: str, named: Mapping[str, str]) -> str | None:
    for end in range(len(layer), 0, -1):
        if (end == len(layer) or layer[end] in BOUNDARIES) and layer[:end] in named:
            return named[layer[:end]]
    return None


def order_stages(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the stages in the order in which an image goes through them."""
    return {name: stages_ms[name] for name in record.STAGES if name in stages_ms}
