"""The graphs that a GPU plan runs: a bundle's stages cut before the weighted sum of the maps, and merged.

`fuse_maps` and `smooth` are kernels of ours, so a stage that gives `map` in the bundle gives its three terms here: am1,
am2 and am3, the sigmoid maps of levels 1 to 3 before they are upsampled, weighted and added (eq. 11).
"""

from collections.abc import Mapping, Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from ndp_rt.bundle import Bundle
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import fold_constants, load_model, remove_unused, rename_tensors
from ndp_rt.kernels.fuse_maps.cut import cut
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS
from ndp_rt.program.manifest import GPU_PLAN_STAGES

TAIL_STAGES = ("decoder", "head", "segmentation")


def make_gpu_stages(bundle: Bundle, plan: str) -> dict[str, ModelProto]:
    """Return the graphs of a GPU plan by name, in float32, with all weights inside and constants folded.

    Args:
        bundle: opened.
        plan: one of `ndp_rt.program.manifest.GPU_PLAN_STAGES`.

    Raises:
        InputError: another plan.
        BundleError: a stage cannot be read, or its map is no weighted sum of three upsampled sigmoid maps.
    """
    if plan not in GPU_PLAN_STAGES:
        raise InputError(f"GPU plan is '{plan}'; one of {', '.join(GPU_PLAN_STAGES)} is taken.")
    return {name: make_gpu_stage(bundle, name) for name in GPU_PLAN_STAGES[plan]}


def make_gpu_stage(bundle: Bundle, name: str) -> ModelProto:
    """Return one graph of a GPU plan, as `make_gpu_stages` does."""
    if name == "tail":
        parts = {part: make_gpu_stage(bundle, part) for part in TAIL_STAGES}
        features = [f"f{level}" for level in range(1, 6)]
        repaired = [f"r{level}k{size}" for level in (3, 4, 5) for size in (2, 4)]
        return merge_stages(parts, name, [*features, *repaired], ["reconstruction", *LEVEL_MAPS])
    model = load_model(bundle.stage_path(name))
    model.graph.name = name
    fold_constants(model)
    return cut(model, "map") if any(value.name == "map" for value in model.graph.output) else model


def merge_stages(
    parts: Mapping[str, ModelProto], name: str, inputs: Sequence[str], outputs: Sequence[str]
) -> ModelProto:
    """Return stages that feed each other by name as one graph; every other tensor gets its stage's name in front.

    Args:
        parts: by name, in the order in which they run.
        name: of the merged graph.
        inputs: the merged graph's, in order.
        outputs: likewise.
    """
    values = {value.name: value for part in parts.values() for value in (*part.graph.output, *part.graph.input)}
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []
    for prefix, part in parts.items():
        graph = onnx.GraphProto()
        graph.CopyFrom(part.graph)
        own = [tensor.name for tensor in graph.initializer] + [out for node in graph.node for out in node.output]
        rename_tensors(graph, {one: f"{prefix}/{one}" for one in own if one not in values})
        nodes += graph.node
        tensors += graph.initializer
    graph = helper.make_graph(nodes, name, [values[one] for one in inputs], [values[one] for one in outputs], tensors)
    first = next(iter(parts.values()))
    merged = helper.make_model(
        graph, opset_imports=list(first.opset_import), ir_version=first.ir_version, producer_name=first.producer_name
    )
    remove_unused(merged)
    return merged
