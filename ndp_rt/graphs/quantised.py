"""Writes int8 into a graph, as QuantizeLinear and DequantizeLinear (Q/DQ) in front of its convolutions.

Symmetric int8, one scale for each output channel of the weights and one for a layer's input: every version of TensorRT
reads this form, and OpenVINO too. A convolution's result is not rounded: bias, ReLU and pooling compute in the graph's
own precision, and rounding happens once, in front of the next convolution.

ONNX Runtime's and NNCF's quantisers were tried instead (issue 6): both measure ranges anew for every choice of layers,
and NNCF also rounds between convolutions. On fabric_02 (edge) with the same convolutions and images its maps were off
by up to 0.26 against 0.20, its engine took 1.10 times as long, and it brings some 15 packages with it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.bundle.int8_layers import Int8Layers
from ndp_rt.errors import EngineError
from ndp_rt.graphs.folding import find_readers, load_model, set_nodes
from ndp_rt.graphs.stages import make_stages
from ndp_rt.graphs.typed import find_islands

QUANTISED = ("Conv", "ConvTranspose")
FEWEST_CHANNELS = 4  # that a group of an int8 convolution reads on a GPU, after zeros have been put in
STEPS = 127  # of each sign
# Float16 holds it, where a GPU's graphs keep steps. Values below half of it become 0: weights of dead channels, and
# what layers read behind them.
SMALLEST_STEP = 2.0**-20
SECOND_PASS = "@reconstruction"  # ends the names of the encoder's layers that read the reconstruction's features
SECOND_STAGE = "head"
ROLES = ("segmentation.", "msdsm.")  # in front of a weight's name in some of a bundle's graphs, not in all


def name_layers(model: ModelProto) -> dict[str, NodeProto]:
    """Return the convolutions with constant weights, by the name that they have in every graph of a bundle.

    The name is the weight's, without the prefixes of some graphs. The encoder's weights are used twice: the second time
    on the reconstruction. RBFRM's convolutions are left out: their weights are the reference's patches.
    """
    stored = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4}
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    islands = find_islands(model)
    readers = find_readers(model)
    found: dict[str, NodeProto] = {}
    for node in model.graph.node:
        if node.op_type not in QUANTISED:
            continue
        weight = casts.get(node.input[1], node.input[1])
        if weight not in stored or _touches(node, islands, readers):
            continue
        stage, _, name = weight.rpartition("/")
        name = name.removesuffix("_float32").removesuffix(".weight")
        for role in ROLES:
            name = name.removeprefix(role)
        is_second = SECOND_STAGE in (stage, model.graph.name) or name in found
        name += SECOND_PASS if is_second else ""
        found[f"{name}_{len(found)}" if name in found else name] = node  # other programs' names may end alike
    return found


def find_half_layers(model: ModelProto) -> set[str]:
    """Return the layers that a GPU computes in half precision, whichever were chosen for int8.

    Layers that read fewer than FEWEST_CHANNELS in a group lose by int8: of a depthwise convolution's input TensorRT-RTX
    1.7 makes a copy four times as large (bench/results/gpu/tensorrt-rtx-builds.md). Convolutions that a
    sigmoid alone reads, whose one value a pixel is the result, lose accuracy and take next to no time.
    """
    readers = find_readers(model)
    read_counts = {tensor.name: tensor.dims[1] for tensor in model.graph.initializer if len(tensor.dims) == 4}
    return {
        name
        for name, node in name_layers(model).items()
        if (node.op_type == "Conv" and read_counts.get(node.input[1], FEWEST_CHANNELS) < FEWEST_CHANNELS)
        or {one.op_type for one in readers.get(node.output[0], [])} == {"Sigmoid"}
    }


def quantise(model: ModelProto, limits: Mapping[str, float]) -> ModelProto:
    """Return the graph with Q/DQ nodes in front of those of its layers that `limits` names.

    Args:
        model: float32, weights inside.
        limits: by layer, the largest |value| that becomes 127; larger ones are cut.
    """
    quantised = ModelProto()
    quantised.CopyFrom(model)
    layers = {node.output[0]: name for name, node in name_layers(quantised).items() if name in limits}
    weights = {tensor.name: tensor for tensor in quantised.graph.initializer}
    casts = {node.output[0]: node.input[0] for node in quantised.graph.node if node.op_type == "Cast"}
    tensors: list[TensorProto] = []
    nodes: list[NodeProto] = []
    rounded: dict[tuple[str, float], str] = {}
    for node in quantised.graph.node:
        name = layers.get(node.output[0])
        if name is not None:
            source = node.input[0], float(limits[name])
            if source not in rounded:
                scale = np.float32(max(source[1] / STEPS, SMALLEST_STEP))
                rounded[source] = _round(source[0], f"{node.output[0]}_read", scale, None, nodes, tensors)
            node.input[0] = rounded[source]
            stored = weights[casts.get(node.input[1], node.input[1])]
            values = numpy_helper.to_array(stored).astype(np.float32)
            axis = 0 if node.op_type == "Conv" else 1
            kept = f"{node.output[0]}_weight"
            tensors.append(numpy_helper.from_array(values, kept))
            node.input[1] = _round(kept, kept, find_weight_scales(values, axis), axis, nodes, tensors)
        nodes.append(node)
    set_nodes(quantised, nodes)
    quantised.graph.initializer.extend(tensors)
    return quantised


def find_weight_scales(weights: FloatArray, axis: int) -> FloatArray:
    """Return the step of each output channel, SMALLEST_STEP or more."""
    largest = np.abs(weights).max(axis=tuple(one for one in range(weights.ndim) if one != axis))
    scales: FloatArray = np.maximum(largest / STEPS, SMALLEST_STEP).astype(np.float32)
    return scales


def write_quantised(graph: Path, limits: Mapping[str, float], target: Path) -> None:
    """Write a stage's file with Q/DQ nodes, all weights inside.

    Raises:
        BundleError: the file cannot be read.
        EngineError: the graph lacks one of the layers.
    """
    model = load_model(graph)
    missing = sorted(set(limits) - set(name_layers(model)))
    if missing:
        raise EngineError(
            f"{graph}: expected the layers of int8.json, got none named {', '.join(missing[:3])}. Choose the layers "
            "again: ndp-rt quantise NAME.ndp"
        )
    target.write_bytes(quantise(model, limits).SerializeToString())


def prepare_graph(bundle: Bundle, graph: Path, precision: str, folder: Path) -> Path:
    """Write the quantised graph, which an engine on the host is made of, into `folder` and return its path.

    Raises:
        EngineError: no layers of the bundle are chosen for the precision, or they belong to another graph.
        BundleError: the graph or int8.json cannot be read.
    """
    limits = bundle.int8_limits(precision)
    if not limits:
        raise EngineError(
            f"{bundle.path.name}: expected layers for {precision}, got none. Choose them: ndp-rt quantise {bundle.path}"
        )
    target = folder / f"{graph.stem}-{precision}.onnx"
    write_quantised(graph, limits, target)
    return target


def quantise_stages(bundle: Bundle, plan: str, layers: Int8Layers) -> dict[str, ModelProto]:
    """Return the graphs of a GPU plan in float32 with Q/DQ nodes; `typed_graph.make_typed` gives them their types.

    Args:
        plan: the name of one of its programs for a GPU.
        layers: those chosen for int8, without `find_half_layers`.

    Raises:
        InputError: another plan.
        BundleError: a stage cannot be read or cut.
        EngineError: nothing is left to quantise.
    """
    quantised = {}
    for name, model in make_stages(bundle, plan).items():
        half = find_half_layers(model)
        quantised[name] = quantise(model, {one: v for one, v in layers.limits_of("int8").items() if one not in half})
    if not any(node.op_type == "QuantizeLinear" for model in quantised.values() for node in model.graph.node):
        raise EngineError(f"{bundle.path}: expected convolutions for int8, got none. Use --precision fp16.")
    return quantised


def _round(
    source: str,
    name: str,
    scale: FloatArray | np.float32,
    axis: int | None,
    nodes: list[NodeProto],
    tensors: list[TensorProto],
) -> str:
    """Add a pair of Q and DQ nodes behind a tensor, and return the name of the result."""
    shape = np.shape(scale)
    tensors.append(numpy_helper.from_array(np.asarray(scale, np.float32), f"{name}_scale"))
    tensors.append(numpy_helper.from_array(np.zeros(shape, np.int8), f"{name}_zero"))
    of_axis = {} if axis is None else {"axis": axis}
    parameters = [f"{name}_scale", f"{name}_zero"]
    steps, result = f"{name}_int8", f"{name}_rounded"
    nodes.append(helper.make_node("QuantizeLinear", [source, *parameters], [steps], name=steps, **of_axis))
    nodes.append(helper.make_node("DequantizeLinear", [steps, *parameters], [result], name=result, **of_axis))
    return result


def _touches(node: NodeProto, islands: set[str], readers: Mapping[str, list[NodeProto]]) -> bool:
    """Tell whether a convolution is part of RBFRM or next to it: its input or result is in an island."""
    result = node.output[0]
    read_by = readers.get(result, [])
    return bool({node.input[0], result} & islands) or any(
        reader.output[0] in islands and reader.op_type != "Sigmoid" for reader in read_by
    )
