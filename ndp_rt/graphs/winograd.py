"""Rewrites convolutions by Winograd's algorithm: the same sums with 2.25 to 4 times fewer multiplications.

A tile of m x m outputs of a k x k convolution depends on p x p inputs d, p = m + k - 1. With fixed matrices A, B, G of
p points it is

    Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A

where * multiplies element by element (Lavin and Gray, Fast algorithms for convolutional neural networks, 2015). Each of
the p^2 elements is then a 1 x 1 convolution over the tiles. B^T d B is written as depthwise convolutions, G g G^T is
computed here in float64, and A^T [.] A as sums. Six points suit float32. In bfloat16 their transforms lose two digits,
four points lose none to speak of: docs/rewrites.md has the figures. Tiles that reach past the result's edge read zeros,
and what they give there is cut off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.errors import BundleError, check_choice
from ndp_rt.graphs.folding import find_readers, find_shapes, fold_constants, load_model, remove_unused, set_nodes
from ndp_rt.graphs.winograd_rule import LEAST_GFLOP, LEAST_INTENSITY, PREFIX, WINDOWS_PX, is_worth_rewriting

FloatMatrix = NDArray[np.float64]
# The attributes of a convolution that is rewritten, and their values, which they have where they are left out too.
FORM: Mapping[str, object] = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
BIAS_AT = (1, 1)  # point 1 on both axes: A^T has a column of ones there, so that what is added reaches every output


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The matrices of p points and a window k: inputs_t is B^T [p, p], filters is G [p, k], outputs_t A^T [m, p]."""

    inputs_t: FloatMatrix
    filters: FloatMatrix
    outputs_t: FloatMatrix

    @property
    def size_px(self) -> int:
        """m: the side of a tile of outputs."""
        return len(self.outputs_t)


@dataclass(frozen=True, kw_only=True)
class _Conv:
    """A convolution that is rewritten."""

    filters: NDArray[Any]  # [c_out, c_in, k, k]
    pads: tuple[int, int, int, int]  # rows of zeros: above, left, below, right
    sides: tuple[int, int]  # of the result: h, w

    def is_alike(self, other: "_Conv") -> bool:
        """Tell whether two can share an output transform."""
        return self.sides == other.sides and self.filters.shape[2:] == other.filters.shape[2:]


def _matrix(rows: Sequence[Sequence[float]], divisor: float = 1.0) -> FloatMatrix:
    return np.asarray(rows, np.float64) / divisor


# Points 0, 1, -1 and infinity; with 2 and -2 where there are six.
INPUTS_T: Mapping[int, FloatMatrix] = {
    4: _matrix([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    6: _matrix(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
}
# By points and window.
TILES: Mapping[tuple[int, int], Tile] = {
    (4, 3): Tile(
        inputs_t=INPUTS_T[4],
        filters=_matrix([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], 2),
        outputs_t=_matrix([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
    (6, 3): Tile(
        inputs_t=INPUTS_T[6],
        filters=_matrix([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], 24),
        outputs_t=_matrix([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
    ),
    (6, 4): Tile(
        inputs_t=INPUTS_T[6],
        filters=_matrix(
            [[6, 0, 0, 0], [-4, -4, -4, -4], [-4, 4, -4, 4], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 24]], 24
        ),
        outputs_t=_matrix([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 1]]),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The nodes that one rewrite replaces: a convolution or two that are added, and the ReLU after them."""

    convolutions: tuple[NodeProto, ...]
    replaced: tuple[NodeProto, ...]  # in order; the last one's output is the result
    has_relu: bool


class _Writer:
    """Collects new nodes, stores initializers in a graph, and names both."""

    def __init__(self, graph: GraphProto, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def add_constant(self, values: NDArray[Any], kind: type[np.generic] = np.float32) -> str:
        """Return the name of a new initializer."""
        name = self._name("constant")
        typed = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
        kind_of_onnx = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        # Made in its place: together they are several 10 MB, which are not copied.
        self._graph.initializer.add(name=name, data_type=kind_of_onnx, dims=typed.shape, raw_data=typed.tobytes())
        return name

    def add_node(self, kind: str, inputs: Sequence[str], **attributes: object) -> str:
        """Return the output of a new node."""
        name = self._name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def add_sum(self, weights: Sequence[float], names: Sequence[str]) -> str:
        """Return the tensor sum of weights times named tensors; the first weight that is not 0 is positive."""
        total = ""
        for weight, name in zip(weights, names, strict=True):
            if weight == 0:
                continue
            if abs(weight) != 1:
                name = self.add_node("Mul", [name, self.add_constant(np.asarray(abs(weight)))])
            total = self.add_node("Add" if weight > 0 else "Sub", [total, name]) if total else name
        return total

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}{PREFIX}{kind}_{self._count}"


def rewrite_file(path: Path, point_count: int) -> bytes | None:
    """Return a stage's graph with its large convolutions in Winograd's form, weights inside; None: there are none.

    None also for a file that cannot be read: the backend reports it.
    """
    try:
        model = load_model(path)
    except BundleError:
        return None
    count = use_winograd(model, point_count, least_gflop=LEAST_GFLOP, least_intensity=LEAST_INTENSITY)
    return model.SerializeToString() if count else None


def use_winograd(model: ModelProto, point_count: int, *, least_gflop: float, least_intensity: float) -> int:
    """Rewrite in place the 3 x 3 convolutions of stride 1 where it pays, with six points 4 x 4 too; return how many.

    Two convolutions that are added share one output transform, and a ReLU after them becomes part of it.

    Args:
        model: float32; its constants are folded.
        point_count: p, 4 or 6.
        least_gflop: the least work of a convolution on one image, before it is rewritten: each becomes some 60 nodes
            (p = 4) or 200 (p = 6), which an engine takes time to load.
        least_intensity: the least c_in c_out / (c_in + c_out), the multiplications for each value of a transform; below
            it the transforms cost more than they save. `is_worth_rewriting` says what it is for 4 x 4.

    Raises:
        InputError: another point_count.
        EngineError: shapes in the graph contradict each other.
    """
    check_choice("point_count", point_count, WINDOWS_PX)
    fold_constants(model)
    shapes = find_shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        conv = _read_convolution(node, constants, shapes)
        if conv is not None and is_worth_rewriting(
            conv.filters.shape, conv.sides, point_count, least_gflop=least_gflop, least_intensity=least_intensity
        ):
            found[node.output[0]] = conv
    for target in _find_targets(model, found):
        _replace(model, target, point_count, found, constants)
    remove_unused(model)
    return len(found)


def _read_convolution(
    node: NodeProto, constants: Mapping[str, TensorProto], shapes: Mapping[str, Sequence[int | None]]
) -> _Conv | None:
    """Return a convolution that can be rewritten, None for another node."""
    if node.op_type != "Conv" or any(name and name not in constants for name in node.input[1:]):
        return None
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    found.pop("kernel_shape", None)
    pads = found.pop("pads", [0, 0, 0, 0])
    if any(name not in FORM or FORM[name] != value for name, value in found.items()) or min(pads) < 0:
        return None
    filters = numpy_helper.to_array(constants[node.input[1]])
    sides = shapes.get(node.output[0], ())[2:]
    if filters.ndim != 4 or len(sides) != 2 or not all(sides):
        return None
    return _Conv(filters=filters, pads=tuple(pads), sides=(sides[0] or 0, sides[1] or 0))


def _find_targets(model: ModelProto, found: Mapping[str, _Conv]) -> list[_Target]:
    """Return the rewrites of a graph, each convolution in one of them."""
    readers = find_readers(model)
    outputs = {value.name for value in model.graph.output}
    producers = {node.output[0]: node for node in model.graph.node if node.output[0] in found}

    def only_reader(node: NodeProto, kind: str) -> NodeProto | None:
        after = readers.get(node.output[0], [])
        return after[0] if len(after) == 1 and after[0].op_type == kind and node.output[0] not in outputs else None

    targets: list[_Target] = []
    done: set[str] = set()
    for node in model.graph.node:
        if node.output[0] not in found or node.output[0] in done:
            continue
        convolutions, replaced = [node], [node]
        total = only_reader(node, "Add")
        if total is not None:
            pair = [producers[name] for name in total.input if name in producers]
            alike = len(pair) == 2 and found[pair[0].output[0]].is_alike(found[pair[1].output[0]])
            if alike and all(only_reader(one, "Add") for one in pair):
                convolutions, replaced = pair, [*pair, total]
        after = only_reader(replaced[-1], "Relu")
        done.update(one.output[0] for one in convolutions)
        targets.append(
            _Target(
                convolutions=tuple(convolutions),
                replaced=(*replaced, after) if after is not None else tuple(replaced),
                has_relu=after is not None,
            )
        )
    return targets


def _replace(
    model: ModelProto,
    target: _Target,
    point_count: int,
    found: Mapping[str, _Conv],
    constants: Mapping[str, TensorProto],
) -> None:
    """Put the Winograd form in place of the last node that it replaces."""
    first = target.convolutions[0]
    sides, window = found[first.output[0]].sides, found[first.output[0]].filters.shape[2]
    tile = TILES[point_count, window]
    writer = _Writer(model.graph, first.name or first.output[0])
    products: list[list[str]] = []
    for node in target.convolutions:
        bias = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 and node.input[2] else None
        own = _write_products(writer, node.input[0], found[node.output[0]], bias, tile)
        products = own if not products else [_add_rows(writer, *rows) for rows in zip(products, own, strict=True)]
    _write_outputs(writer, products, tile, sides, target.has_relu)
    writer.nodes[-1].output[0] = target.replaced[-1].output[0]
    dropped = {node.output[0] for node in target.replaced}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.output[0] == target.replaced[-1].output[0]:
            nodes += writer.nodes
        elif node.output[0] not in dropped:
            nodes.append(node)
    set_nodes(model, nodes)


def _add_rows(writer: _Writer, row: Sequence[str], other: Sequence[str]) -> list[str]:
    return [writer.add_node("Add", pair) for pair in zip(row, other, strict=True)]


def _write_products(
    writer: _Writer, source: str, conv: _Conv, bias: NDArray[Any] | None, tile: Tile
) -> list[list[str]]:
    """Write B^T d B and its products with G g G^T; return their names, p rows of p, the bias included."""
    m, count = tile.size_px, len(tile.inputs_t)
    c_in, window = conv.filters.shape[1:3]
    top, left, bottom, right = conv.pads
    bottom, right = bottom + -conv.sides[0] % m, right + -conv.sides[1] % m  # whole tiles
    # G g G^T as one product: [p p, k k] times [k k, c_out c_in].
    transformed = np.kron(tile.filters, tile.filters) @ conv.filters.reshape(-1, window**2).T.astype(np.float64)
    transformed = transformed.reshape(count, count, -1, c_in, 1, 1)
    columns = [writer.add_constant(np.tile(row.reshape(1, 1, 1, count), (c_in, 1, 1, 1))) for row in tile.inputs_t]
    rows = []
    for y in range(count):
        taps = writer.add_constant(np.tile(tile.inputs_t[y].reshape(1, 1, count, 1), (c_in, 1, 1, 1)))
        across = {"group": c_in, "strides": [m, 1], "pads": [top, 0, bottom, 0], "kernel_shape": [count, 1]}
        band = writer.add_node("Conv", [source, taps], **across)  # [n, c_in, h / m, w]
        row = []
        for x in range(count):
            along = {"group": c_in, "strides": [1, m], "pads": [0, left, 0, right], "kernel_shape": [1, count]}
            values = writer.add_node("Conv", [band, columns[x]], **along)  # [n, c_in, h / m, w / m]
            inputs = [values, writer.add_constant(transformed[y, x])]
            if bias is not None and (y, x) == BIAS_AT:
                inputs.append(writer.add_constant(bias))
            row.append(writer.add_node("Conv", inputs, kernel_shape=[1, 1]))  # [n, c_out, h / m, w / m]
        rows.append(row)
    return rows


def _write_outputs(
    writer: _Writer, products: Sequence[Sequence[str]], tile: Tile, sides: Sequence[int], has_relu: bool
) -> None:
    """Write A^T [.] A, the ReLU, and last the node that puts the tiles side by side, [n, c_out, h, w], or cuts them."""
    across = [_write_sums(writer, column, tile) for column in zip(*products, strict=True)]  # [p][m]
    values = [name for row in zip(*across, strict=True) for name in _write_sums(writer, row, tile)]  # m rows of m
    if has_relu:
        values = [writer.add_node("Relu", [name]) for name in values]
    blocks = writer.add_node("Concat", values, axis=1)  # [n, m m c_out, h / m, w / m]
    whole = writer.add_node("DepthToSpace", [blocks], blocksize=tile.size_px, mode="DCR")
    if any(side % tile.size_px for side in sides):
        bounds = [writer.add_constant(np.array(values), np.int64) for values in ([0, 0], sides, [2, 3])]
        writer.add_node("Slice", [whole, *bounds])


def _write_sums(writer: _Writer, names: Sequence[str], tile: Tile) -> list[str]:
    """Write A^T times a vector of tensors; the sums and differences that its rows share are made once."""
    if len(names) == 4:
        return [writer.add_sum(row, names) for row in tile.outputs_t]
    pairs = [writer.add_node(kind, names[at : at + 2]) for at in (1, 3) for kind in ("Add", "Sub")]
    plus, minus, plus_twos, minus_twos = pairs
    rows = [[names[0], plus, plus_twos], [minus, minus_twos], [plus, plus_twos], [minus, minus_twos]][: tile.size_px]
    rows[-1].append(names[5])  # the point at infinity
    weights = ([1, 1, 1, 1], [1, 2, 1], [1, 4, 1], [1, 8, 1])
    return [writer.add_sum(weights[at][: len(row)], row) for at, row in enumerate(rows)]
