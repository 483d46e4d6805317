"""What a graph must compute and move: its FLOP, and the least bytes between memory and processor.

FLOP are those of convolutions, transposed convolutions and matrix products, a multiply-add counted as 2, padding
included, as the operators' shapes give them. The least bytes are counted in groups of nodes:

- An element-wise operator joins the group of the node before it: the last in the graph's order among those that make
  its inputs and whose result nothing but it reads. Every other node begins a group of its own.
- Reshape and its like move nothing: their result is their input under another name.
- A group reads every tensor from outside it once, weights included, and writes every tensor that another group or the
  caller reads once. What lies between the nodes of one group costs nothing.
- Every value takes the bytes of the precision's element, also where an engine keeps a wider type; in "mixed", int8's.

Caches that keep a tensor from one group to the next are not counted on, so an engine that fuses more moves less.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import find_shapes, fix_batch, load_model

ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "mixed": 1}
ELEMENT_WISE = frozenset(
    (
        *("Abs", "Add", "Div", "Max", "Mean", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Sign", "Sqrt", "Sub", "Sum"),
        *("Ceil", "Clip", "Erf", "Exp", "Floor", "Log", "Round", "Tanh"),
        *("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid"),
        *("Softplus", "Softsign"),
        *("BatchNormalization", "Cast", "Equal", "Greater", "Less", "Not", "Where"),
    )
)
VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class GraphWork:
    """The work of one run of a graph with so many images."""

    batch: int
    flop_count: int
    moved_bytes: int

    @property
    def gflop_per_image(self) -> float:
        """10^9 operations for one image."""
        return self.flop_count / self.batch * 1e-9

    @property
    def megabytes_per_image(self) -> float:
        """10^6 bytes for one image; what a batch reads once is shared out."""
        return self.moved_bytes / self.batch * 1e-6


def count_file(onnx_path: Path, *, batch: int = 1, precision: str = "fp32") -> GraphWork:
    """Count a graph in a file, such as a bundle's `stage_path("fused")`.

    Raises:
        BundleError: it cannot be read.
        EngineError: its shapes contradict each other.
        InputError: another precision, or a shape that the batch does not settle.
    """
    model = load_model(onnx_path)
    fix_batch(model, batch)
    return count_graph(model, batch=batch, precision=precision)


def count_graph(model: Any, *, batch: int, precision: str) -> GraphWork:
    """Count a graph whose shapes are fixed and whose constants are folded (`graphs.folding.fix_batch`).

    Raises:
        InputError: another precision, or a shape that is not fixed.
    """
    if precision not in ELEMENT_BYTES:
        raise InputError(f"expected one of the precisions {', '.join(ELEMENT_BYTES)}, got '{precision}'.")
    nodes = list(model.graph.node)
    shapes = _find_fixed_shapes(model, nodes)
    return GraphWork(
        batch=batch,
        flop_count=sum(count_flops(node, shapes) for node in nodes),
        moved_bytes=_count_moved_values(model, nodes, shapes) * ELEMENT_BYTES[precision],
    )


def count_flops(node: Any, shapes: Shapes) -> int:
    """Return a node's operations; 0 for all that neither convolves nor multiplies matrices."""
    if node.op_type == "Conv":  # each output value sums over one filter [m, c / groups, kernel]
        return 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # each input value goes through one filter [c, m / groups, kernel]
        return 2 * prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if is_transposed else 1]
    return 0


def _find_fixed_shapes(model: Any, nodes: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dims in find_shapes(model).items():
        known = tuple(size for size in dims if size is not None)
        if len(known) == len(dims):
            shapes[name] = known
    for node in nodes:
        unknown = [name for name in (*node.input, *node.output) if name and name not in shapes]
        if unknown:
            raise InputError(
                f"the shape of '{unknown[0]}' at node '{node.name}' ({node.op_type}) is not settled by the batch. "
                "Export the graph with every other axis fixed."
            )
    return shapes


def _count_moved_values(model: Any, nodes: Sequence[Any], shapes: Shapes) -> int:
    """Return how many values all groups read and write."""
    sources = _find_sources(nodes)
    real = [number for number, node in enumerate(nodes) if node.op_type not in VIEWS]
    readers: dict[str, set[int]] = {}
    for number in real:
        for name in _list_read(nodes[number], sources):
            readers.setdefault(name, set()).add(number)
    results = {sources.get(value.name, value.name) for value in model.graph.output}
    makers = {name: number for number, node in enumerate(nodes) for name in node.output}
    groups: dict[int, int] = {}
    members: dict[int, set[int]] = {}
    for number in real:
        read = _list_read(nodes[number], sources) if nodes[number].op_type in ELEMENT_WISE else []
        before = [makers[name] for name in read if name in makers and readers[name] == {number} and name not in results]
        groups[number] = groups[max(before)] if before else number
        members.setdefault(groups[number], set()).add(number)
    count = 0
    for inside in members.values():
        made = {name for number in inside for name in nodes[number].output if name}
        taken = {name for number in inside for name in _list_read(nodes[number], sources)} - made
        written = {name for name in made if name in results or readers.get(name, set()) - inside}
        count += sum(prod(shapes[name]) for name in taken | written)
    return count


def _find_sources(nodes: Iterable[Any]) -> dict[str, str]:
    """Return, for what a view gives, the tensor that holds its values."""
    sources: dict[str, str] = {}
    for node in nodes:
        if node.op_type in VIEWS:
            sources[node.output[0]] = sources.get(node.input[0], node.input[0])
    return sources


def _list_read(node: Any, sources: Mapping[str, str]) -> list[str]:
    return [sources.get(name, name) for name in node.input if name]
