"""Writes a precision into the types of an ONNX graph, which TensorRT 10 and later build as they are.

In fp16 and bf16 every tensor has the half type, but for the outputs `map` and `own_score`, which the kernels behind it
read as float32, and islands that stay float32, with a Cast at each border:

- norms, from the squares to the division by them: the sum of a patch's squares passes float16's 65504 with 4096
  features of 4 (w = 64, K = 4; tests/data/bricks.ndp, w = 16, comes to 6050), and the smallest norm, 1e-6, is no normal
  float16;
- the softmax over the reference's patches: up to some thousand shares below 1e-3 that have to add up to 1. An export
  without rewrites has FFM's softmax as the same operator, so it is float32 there too. The exponentials that rewritten
  exports have in its place stay in half precision: on tests/data/bricks float32 there changed no map by 1e-4;
- the sigmoids of NDP-Net's three maps, whose results leave the graph as float32;
- in bf16, transposed convolutions, of which TensorRT-RTX 1.7 has none, and operators that ONNX does not have (TopK).

Other convolutions and matrix products, where the time goes, are never in an island, except for one that sums squares.

An int8 graph is a float16 one with QuantizeLinear and DequantizeLinear in front of convolutions (`quantised`).
"""

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import EngineError, check_choice
from ndp_rt.graphs.folding import find_readers, infer, set_nodes
from ndp_rt.graphs.half_types import BORDER_DTYPES, narrow, widen
from ndp_rt.program.program import MAP, OWN_SCORE

ONNX_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
# Opset 22 is the first whose convolutions and pools take bfloat16, 19 the first whose QuantizeLinear takes float16; the
# IR versions are those that came with them. Other precisions keep the bundle's own opset, which TensorRT 8.5 reads too.
OPSETS = {"bf16": (22, 10), "int8": (19, 9)}
SPLIT_OPSET = 18  # the first whose Split says in how many parts
# Rounding a weight costs at most 2^-11 of it; more than this means values among float16's subnormal numbers.
MAX_WEIGHT_ERROR = 1e-2


def make_typed(model: ModelProto, precision: str) -> ModelProto:
    """Return the model with the types of a precision; fp32 and tf32 keep its float32.

    Args:
        model: float32, constants folded (`ndp_rt.graphs.stages`); for int8 with Q/DQ nodes (`quantised`).
        precision: one of BORDER_DTYPES.

    Raises:
        InputError: another precision.
        EngineError: weights that the type cannot hold, an operator whose types are not known, or Q/DQ nodes in another
            precision than int8; the message names it.
    """
    check_choice("precision", precision, BORDER_DTYPES)
    if precision != "int8" and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise EngineError(
            f"stage '{model.graph.name}': expected no QuantizeLinear nodes for {precision}, got some. Use the graph "
            "from before it was quantised, or int8."
        )
    typed = ModelProto()
    typed.CopyFrom(model)
    if BORDER_DTYPES[precision] != "float32":
        if precision in OPSETS:
            _raise_opset(typed, *OPSETS[precision])
        _Typing(typed, BORDER_DTYPES[precision]).apply()
    return typed


def find_maps(model: ModelProto) -> set[str]:
    """Return the outputs that are maps, float32 in every precision: [n, 1, ...], made by a Sigmoid."""
    sigmoids = {node.output[0] for node in model.graph.node if node.op_type == "Sigmoid"}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    return {name for name, dims in shapes.items() if name in sigmoids and len(dims) > 1 and dims[1].dim_value == 1}


def find_islands(model: ModelProto) -> set[str]:
    """Return the results of the nodes that compute in float32 whatever the precision."""
    return _Islands(model).find()


class _Islands:
    """Finds the float32 islands of a graph by its structure."""

    def __init__(self, model: ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._read_by = find_readers(model)
        self._constants = {tensor.name for tensor in model.graph.initializer}
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._maps = find_maps(model)
        self._found: set[str] = set()

    def find(self) -> set[str]:
        for node in self._nodes:
            if node.op_type == "ReduceL2":
                self._add_norm(node, [])
            elif node.op_type == "Sqrt":
                squares = self._climb(node, _is_square)
                if squares is not None:
                    self._add_norm(node, squares)
            elif node.op_type == "Softmax" or (node.op_type == "Exp" and self._is_summed(node)):
                self._add_softmax(node)
            elif node.op_type == "Sigmoid" and node.output[0] in self._maps:
                self._add(node)
        return self._found

    def _add(self, *nodes: NodeProto) -> None:
        self._found.update(name for node in nodes for name in node.output)

    def _add_norm(self, norm: NodeProto, squares: Iterable[NodeProto]) -> None:
        """Add a norm, what it sums, the bound that holds it above zero, and the division by it."""
        self._add(norm, *squares)
        for reader in self._readers(norm):
            if reader.op_type in ("Clip", "Max", "Expand"):
                self._add_norm(reader, [])
            elif reader.op_type == "Div" and reader.input[1] == norm.output[0]:
                self._add(reader)

    def _add_softmax(self, node: NodeProto) -> None:
        """Add a softmax, or the exponential of one with its shift, sum and reciprocal."""
        self._add(node)
        before = self._producers.get(node.input[0])
        if (
            node.op_type == "Exp"
            and before is not None
            and before.op_type == "Sub"
            and before.input[1] in self._constants
        ):
            self._add(before)
        for reader in self._readers(node):
            if reader.op_type in ("ReduceSum", "Reciprocal") or (
                node.op_type == "Reciprocal" and reader.op_type == "Mul" and self._constants & set(reader.input)
            ):
                self._add_softmax(reader)

    def _climb(self, node: NodeProto, is_end: Callable[[NodeProto], bool]) -> list[NodeProto] | None:
        """Return the nodes between `node` and the nearest that `is_end` names, it included; None: there is none."""
        names = [name for name in node.input if name and name not in self._constants]
        if len(set(names)) != 1 or names[0] not in self._producers:
            return None
        before = self._producers[names[0]]
        if is_end(before):
            return [before]
        rest = self._climb(before, is_end)
        return None if rest is None else [before, *rest]

    def _is_summed(self, node: NodeProto) -> bool:
        return any(reader.op_type == "ReduceSum" for reader in self._readers(node))

    def _readers(self, node: NodeProto) -> list[NodeProto]:
        return self._read_by.get(node.output[0], [])


def _is_square(node: NodeProto) -> bool:
    return bool(node.op_type == "Mul" and node.input[0] == node.input[1])


class _Typing:
    """Gives every float tensor of a graph, in place, the half type or float32."""

    def __init__(self, model: ModelProto, dtype: str) -> None:
        self._model = model
        self._dtype = dtype
        self._half = ONNX_TYPES[dtype]
        self._opset = model.opset_import[0].version
        inferred = infer(model).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types.update({tensor.name: tensor.data_type for tensor in model.graph.initializer})
        self._tensors: dict[str, TensorProto] = {}  # the new initializers
        self._homes: dict[str, int] = {}  # of each computed float tensor: the type that it is computed in
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def apply(self) -> None:
        graph, islands = self._model.graph, find_islands(self._model)
        if self._dtype == "bfloat16":
            lacking = [node for node in graph.node if node.op_type == "ConvTranspose" or not self._has_type(node)]
            islands |= {node.output[0] for node in lacking}
        for value in graph.input:
            if self._types[value.name] == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = self._half
                self._homes[value.name] = self._half
        for node in list(graph.node):
            self._convert(node, TensorProto.FLOAT if islands & set(node.output) else self._half)
        maps = find_maps(self._model)
        for value in graph.output:
            wanted = TensorProto.FLOAT if value.name in (MAP, OWN_SCORE, *maps) else self._half
            if self._homes[value.name] != wanted and value.name in (MAP, OWN_SCORE):
                self._widen_output(value.name)
            if self._homes[value.name] != wanted:
                raise EngineError(
                    f"stage '{graph.name}', output '{value.name}': expected {self._name_of(wanted)}, got "
                    f"{self._name_of(self._homes[value.name])}. Maps must come from a Sigmoid. Report this bundle."
                )
            value.type.tensor_type.elem_type = wanted
        del graph.value_info[:]
        set_nodes(self._model, self._nodes)
        del graph.initializer[:]
        graph.initializer.extend(self._tensors.values())

    def _has_type(self, node: NodeProto) -> bool:
        """Tell whether ONNX has an operator in the half type."""
        schema = _find_schema(node, self._opset)
        kinds = {kind.type_param_str: kind.allowed_type_strs for kind in schema.type_constraints}
        return f"tensor({self._dtype})" in kinds.get(schema.outputs[0].type_str, ())

    def _convert(self, node: NodeProto, kind: int) -> None:
        """Append a node that computes in `kind`, behind the casts that its inputs need."""
        copy = NodeProto()
        copy.CopyFrom(node)
        follows = _find_followers(node, self._opset)
        for index, name in enumerate(node.input):
            if not name:
                continue
            is_float = self._types.get(name) == TensorProto.FLOAT
            copy.input[index] = self._provide(name, kind if is_float and follows[index] else self._types[name])
        for name in node.output:
            if self._types.get(name) == TensorProto.FLOAT:
                self._homes[name] = kind
                for attribute in copy.attribute if node.op_type == "Cast" else ():
                    attribute.i = kind  # the one that it has besides is `saturate`, of types that we do not have
        self._nodes.append(copy)

    def _widen_output(self, name: str) -> None:
        """Give an output in the half type to whoever reads it here under another name, and as float32 to all others."""
        inner = f"{name}_{self._dtype}"
        for node in self._nodes:
            for which in (node.input, node.output):
                which[:] = [inner if one == name else one for one in which]
        self._nodes.append(helper.make_node("Cast", [inner], [name], name=f"{name}_float32", to=TensorProto.FLOAT))
        self._homes[name] = TensorProto.FLOAT

    def _provide(self, name: str, kind: int) -> str:
        """Return the name of a tensor as `kind`, with a cast or a converted constant where one is needed."""
        if name in self._constants:
            return self._provide_constant(name, kind)
        if self._homes.get(name, kind) == kind:
            return name
        if (name, kind) not in self._casts:
            cast = f"{name}_{self._name_of(kind)}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=kind))
            self._casts[name, kind] = cast
        return self._casts[name, kind]

    def _provide_constant(self, name: str, kind: int) -> str:
        tensor = self._constants[name]
        if kind == tensor.data_type and kind != TensorProto.FLOAT:
            self._tensors[name] = tensor  # integers
            return name
        new_name = f"{name}_{self._name_of(kind)}" if kind == TensorProto.FLOAT else name
        if new_name not in self._tensors:
            self._tensors[new_name] = self._convert_constant(tensor, new_name, kind)
        return new_name

    def _convert_constant(self, tensor: TensorProto, name: str, kind: int) -> TensorProto:
        values = numpy_helper.to_array(tensor)
        if kind != TensorProto.FLOAT:
            check_weights(values, tensor.name, self._dtype)
            values = narrow(values, self._dtype)
        data = np.ascontiguousarray(values).tobytes()
        return helper.make_tensor(name, kind, list(tensor.dims), data, raw=True)

    def _name_of(self, kind: int) -> str:
        return "float32" if kind == TensorProto.FLOAT else self._dtype


def check_weights(values: FloatArray, name: str, dtype: str) -> None:
    """Check that a tensor's values can be held as `dtype`.

    Raises:
        EngineError: a value is too large or not finite, or most are too small; the message names the tensor.
    """
    rounded = widen(narrow(values, dtype), dtype)
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(rounded).all():
        raise EngineError(
            f"weights '{name}': expected values that {dtype} can hold, got up to {largest:.3g}. Build with --precision "
            "fp32, tf32 or bf16, or train the network again."
        )
    size = float(np.abs(values).sum(dtype=np.float64))
    error = float(np.abs(rounded - values).sum(dtype=np.float64))
    if error > MAX_WEIGHT_ERROR * size:
        raise EngineError(
            f"weights '{name}': expected values that {dtype} can hold, got at most {largest:.3g}, so small that it "
            f"loses {error / size:.1%} of them. Build with --precision fp32, tf32 or bf16."
        )


def _find_followers(node: NodeProto, opset: int) -> list[bool]:
    """Tell for each input whether its type is the one that the node computes in, as ONNX defines the operator."""
    schema = _find_schema(node, opset)
    formal = schema.inputs
    kind = (formal if node.op_type == "QuantizeLinear" else schema.outputs)[0].type_str
    return [formal[min(index, len(formal) - 1)].type_str == kind for index in range(len(node.input))]


def _find_schema(node: NodeProto, opset: int) -> onnx.defs.OpSchema:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError as error:
        raise EngineError(
            f"operator: expected one of ONNX opset {opset}, got {node.op_type}. Export the bundle again."
        ) from error


def _raise_opset(model: ModelProto, opset: int, ir_version: int) -> None:
    """Move a graph of opset 17 or later to one that is later still; one that is there already stays.

    Of what bundles use only reductions changed, whose axes became an input, and Split, which says in how many parts.
    """
    before = model.opset_import[0].version
    if before >= opset:
        return
    for node in model.graph.node:
        axes = next((one for one in node.attribute if one.name == "axes" and node.op_type.startswith("Reduce")), None)
        if axes is not None:
            tensor = numpy_helper.from_array(np.asarray(axes.ints, np.int64), f"{node.output[0]}_axes")
            model.graph.initializer.append(tensor)
            node.input.append(tensor.name)
            node.attribute.remove(axes)
        if node.op_type == "Split" and len(node.input) == 1 and before < SPLIT_OPSET:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    model.opset_import[0].version = opset
    model.ir_version = ir_version
