"""Every operator that bundles use, against ONNX Runtime; what is not known or not taken is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ndp_rt.engines.backends.torch.interpreter import TorchProgram
from ndp_rt.engines.backends.torch.operators import OPERATORS, TORCH_TYPES
from ndp_rt.errors import EngineError
from ndp_rt.export.models.ndpnet.program import export_network
from ndp_rt.export.onnx.bundle import write_graphs
from ndp_rt.graphs.folding import fix_batch, fold_constants, load_model
from ndp_rt.graphs.stages import merge_stages
from ndp_rt.graphs.typed import make_typed
from ndp_rt.kernels.fuse_maps.cut import cut
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, fuse_maps
from tests.export.random_run import random_network
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One node: the shapes of its data, its constant inputs after them, and its attributes."""

    kind: str
    data: Sequence[tuple[int, ...]]
    constants: Sequence[np.ndarray | None] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1

    def to_model(self) -> ModelProto:
        """Return a model of this node alone."""
        names = [f"x{index}" for index in range(len(self.data))]
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, self.data, strict=True)]
        given = {f"c{index}": value for index, value in enumerate(self.constants) if value is not None}
        tensors = [numpy_helper.from_array(value, name) for name, value in given.items()]
        names += [f"c{index}" if value is not None else "" for index, value in enumerate(self.constants)]
        results = ["y", *(f"y{index}" for index in range(1, self.outputs))]
        node = helper.make_node(self.kind, names, results, **self.attributes)
        kind = TensorProto.INT64 if self.kind.startswith("Arg") else TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            helper.make_graph([node], "one", inputs, outputs, tensors), opset_imports=opsets, ir_version=10
        )


MAP = (2, 4, 6, 10)
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 1]}
NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
CASES = [
    Case(kind="Add", data=[MAP, (2, 1, 6, 10)]),
    Case(kind="ArgMax", data=[MAP], attributes={"axis": 1, "keepdims": 0}),
    Case(kind="ArgMin", data=[MAP], attributes={"axis": -1}),
    Case(kind="AveragePool", data=[MAP], attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case(kind="AveragePool", data=[MAP], attributes={**WINDOW, "count_include_pad": 1}),
    Case(kind="AveragePool", data=[MAP], attributes=WINDOW),
    Case(kind="Cast", data=[MAP], attributes={"to": TensorProto.FLOAT}),
    Case(kind="Clip", data=[MAP], constants=[np.float32(-0.1), np.float32(0.4)]),
    Case(kind="Clip", data=[MAP], constants=[np.float32(0.2)]),
    Case(kind="Clip", data=[MAP], constants=[None, np.float32(0.2)]),
    Case(kind="Concat", data=[MAP, MAP, (2, 1, 6, 10)], attributes={"axis": 1}),
    Case(kind="Conv", data=[MAP, (5, 4, 3, 3), (5,)], attributes=WINDOW),
    Case(kind="Conv", data=[MAP, (6, 2, 3, 3)], attributes={"group": 2, "dilations": [2, 1], "pads": [2, 0, 2, 0]}),
    Case(kind="Conv", data=[MAP, (5, 4, 2, 2)], attributes={"strides": [2, 2]}),
    Case(kind="Conv", data=[MAP, (5, 4, 3, 3), (5,)], attributes={"strides": [2, 2], "pads": [0, 1, 1, 2]}),
    Case(kind="ConvTranspose", data=[MAP, (4, 3, 4, 4), (3,)], attributes={"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case(kind="ConvTranspose", data=[MAP, (4, 3, 2, 2)], attributes={"strides": [2, 2], "group": 2}),
    Case(kind="DepthToSpace", data=[(2, 12, 3, 5)], attributes={"blocksize": 2, "mode": "CRD"}),
    Case(kind="Div", data=[MAP, MAP]),
    Case(kind="Exp", data=[MAP]),
    Case(kind="Expand", data=[(2, 4, 1)], constants=[np.int64([2, 4, 7])]),
    Case(kind="Expand", data=[(2, 4, 3)], constants=[np.int64([5, 1, 1, 3])]),
    Case(kind="Expand", data=[(2, 4, 3)], constants=[np.int64([1])]),
    Case(kind="Flatten", data=[MAP]),
    Case(kind="Flatten", data=[MAP], attributes={"axis": 3}),
    Case(kind="Gather", data=[(3, 2, 4)], constants=[np.int64(1)], attributes={"axis": 0}),
    Case(kind="Gather", data=[MAP], constants=[np.int64([3, 0, 3])], attributes={"axis": 1}),
    Case(kind="Gather", data=[(3, 2, 4)], constants=[np.int64(-1)], attributes={"axis": 2}),
    Case(kind="GatherND", data=[MAP], constants=[np.int64([[1, 3], [0, -1], [0, 0]])]),
    Case(kind="MatMul", data=[(2, 4, 3), (2, 3, 5)]),
    Case(kind="MatMul", data=[(2, 4, 5)], constants=[ROWS]),
    Case(kind="Max", data=[MAP, MAP, (1,)]),
    Case(kind="MaxPool", data=[MAP], attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case(kind="MaxPool", data=[MAP], attributes={**WINDOW, "dilations": [1, 2]}),
    Case(kind="Mul", data=[MAP, (4, 1, 1)]),
    Case(kind="Neg", data=[MAP]),
    Case(kind="Pad", data=[MAP], constants=[np.int64([0, 0, 2, 3, 0, 0, 1, 0])], attributes={"mode": "reflect"}),
    Case(kind="Pad", data=[MAP], constants=[np.int64([0, 0, 0, 3, 0, 0, 0, 1])], attributes={"mode": "edge"}),
    Case(kind="Pad", data=[MAP], constants=[np.int64([0, 1, 2, 3, 1, 0, 0, 1]), np.float32(0.5)]),
    Case(kind="Pow", data=[MAP], constants=[np.float32(2)]),
    Case(kind="Reciprocal", data=[MAP]),
    Case(kind="ReduceL2", data=[MAP], attributes={"axes": [2], "keepdims": 1}),
    Case(kind="ReduceL2", data=[MAP], constants=[np.int64([1, 3])], attributes={"keepdims": 0}, opset=22),
    Case(kind="ReduceMax", data=[MAP], attributes={"axes": [1], "keepdims": 0}),
    Case(kind="ReduceMean", data=[MAP], attributes={"axes": [3], "keepdims": 1}),
    Case(kind="ReduceMean", data=[MAP], constants=[np.int64([2])], attributes={"keepdims": 1}, opset=22),
    Case(kind="ReduceMin", data=[MAP], attributes={"axes": [-2, 3]}),
    Case(kind="ReduceSum", data=[MAP], constants=[np.int64([1])], attributes={"keepdims": 1}),
    Case(kind="ReduceSum", data=[MAP], constants=[np.int64([1, 2, -1])]),
    Case(kind="Relu", data=[MAP]),
    Case(kind="Reshape", data=[MAP], constants=[np.int64([0, -1, 5, 2])]),
    Case(kind="Reshape", data=[MAP], constants=[np.int64([2, -1])], attributes={"allowzero": 1}),
    Case(kind="Resize", data=[MAP], constants=[None, np.float32([1, 1, 2, 4])], attributes=NEAREST),
    Case(kind="Resize", data=[MAP], constants=[None, None, np.int64([2, 4, 12, 10])], attributes=NEAREST),
    Case(kind="Resize", data=[MAP], constants=[None, np.float32([1, 1, 2, 2])], attributes={"mode": "linear"}),
    Case(kind="Sigmoid", data=[MAP]),
    Case(kind="Softmax", data=[(3, 2, 4, 5)], attributes={"axis": 0}),
    Case(kind="Softmax", data=[(3, 2, 4)]),
    Case(kind="Sqrt", data=[MAP]),
    Case(kind="Squeeze", data=[(1, 4, 1)], constants=[np.int64([-1])]),
    Case(kind="Sub", data=[MAP, (1,)]),
    Case(kind="Sum", data=[MAP, MAP, MAP]),
    Case(kind="TopK", data=[MAP], constants=[np.int64([3])], outputs=2),
    Case(kind="TopK", data=[MAP], constants=[np.int64([2])], attributes={"axis": 1, "largest": 0}, outputs=2),
    Case(kind="Transpose", data=[MAP], attributes={"perm": [2, 0, 3, 1]}),
    Case(kind="Unsqueeze", data=[(3, 4)], constants=[np.int64([0])]),
    Case(kind="Unsqueeze", data=[(3, 4)], constants=[np.int64([-1, 1])]),
]


def run(model: ModelProto, inputs: dict[str, np.ndarray], channels_last: bool = False) -> dict[str, np.ndarray]:
    """Run a model, whose output shapes may be unknown, through a TorchProgram; return its outputs as float32."""
    program = TorchProgram(model, CPU, channels_last=channels_last)
    values = (*model.graph.input, *onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    slots = {**program.inputs, **program.outputs}
    tensors = {name: torch.full(shapes[name], -7, dtype=TORCH_TYPES[kinds[name]]) for name in slots}
    for name, array in inputs.items():
        tensors[name].copy_(torch.from_numpy(array))
    bound = {slots[name]: tensor for name, tensor in tensors.items()}
    with torch.inference_mode():
        program.examine(bound)
        examined = {name: tensors[name].clone() for name in program.outputs}
        program.run(bound)
    for name, tensor in examined.items():  # the last bit of a sigmoid depends on the layout that it is written in
        torch.testing.assert_close(tensor, tensors[name])
    return {name: tensors[name].float().numpy() for name in program.outputs}


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_an_operator_gives_what_onnx_runtime_gives(case: Case, channels_last: bool, rng: np.random.Generator) -> None:
    model = case.to_model()
    inputs = {
        value.name: rng.uniform(0.1, 1.0, shape) for value, shape in zip(model.graph.input, case.data, strict=True)
    }
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    if case.kind in ("Relu", "Clip", "Max"):
        inputs = {name: array - np.float32(0.5) for name, array in inputs.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["y"], inputs)
    assert_close(run(model, inputs, channels_last)["y"], expected, "rewrite", "float32")


def test_every_operator_has_a_case() -> None:
    assert {case.kind for case in CASES} == set(OPERATORS)


def test_an_unknown_operator_is_one_clear_error() -> None:
    model = Case(kind="Erf", data=[MAP]).to_model()
    model.graph.node[0].name = "odd one"
    with pytest.raises(
        EngineError, match="node 'odd one' is a Erf, which backend torch-cuda does not run; it runs Add, "
    ):
        TorchProgram(model, CPU, channels_last=False)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            Case(kind="ConvTranspose", data=[MAP, (4, 3, 3, 3)], attributes={"pads": [0, 1, 1, 1]}),
            r"expected pads = .*, got \[0, 1, 1, 1\]",
        ),
        (
            Case(kind="Conv", data=[MAP, (5, 4, 3, 3)], attributes={"auto_pad": "SAME_UPPER"}),
            "expected auto_pad = .*, got 'SAME_UPPER'",
        ),
        (
            Case(kind="MaxPool", data=[MAP], attributes={"kernel_shape": [2, 2], "ceil_mode": 1}),
            "expected ceil_mode = 0 .*, got 1",
        ),
        (
            Case(
                kind="ConvTranspose", data=[MAP, (4, 3, 2, 2)], attributes={"output_padding": [1, 1], "strides": [2, 2]}
            ),
            r"expected output_padding = .*, got \[1, 1\]",
        ),
        (
            Case(kind="DepthToSpace", data=[(1, 4, 2, 2)], attributes={"blocksize": 2}),
            "expected mode = 'CRD' .*, got 'DCR'",
        ),
        (
            Case(kind="Resize", data=[MAP], constants=[None, np.float32([1, 1, 2, 2])], attributes={"mode": "cubic"}),
            "expected mode = .*, got 'cubic'",
        ),
        (
            Case(kind="Resize", data=[MAP], constants=[None, np.float32([1, 1, 2, 2])]),
            "expected coordinate_transformation_mode = 'asymmetric' of a Resize, got 'half_pixel'",
        ),
        (
            Case(kind="Resize", data=[MAP], constants=[None, np.float32([1, 2, 2, 2])], attributes=NEAREST),
            r"expected scales = .* of a Resize, got \[1.0, 2.0, 2.0, 2.0\]",
        ),
        (Case(kind="ReduceSum", data=[MAP]), "a reduction over all axes"),
        (Case(kind="Gather", data=[MAP], constants=[np.int64([0, -1])]), "a Gather by a row of indices from 0, got"),
        (
            Case(
                kind="Pad", data=[MAP], constants=[np.int64([0, 1, 0, 0, 0, 0, 0, 0])], attributes={"mode": "reflect"}
            ),
            "expected pads before the last two axes = False of a Pad",
        ),
        (Case(kind="Pad", data=[MAP], constants=[np.int64([0] * 8)], attributes={"mode": "wrap"}), "expected mode = "),
        (Case(kind="Pow", data=[(1, 2)], constants=[np.float32([1, 2])]), "expected exponents = 1 of a Pow, got 2"),
        (Case(kind="ArgMax", data=[MAP], attributes={"select_last_index": 1}), "expected select_last_index = 0"),
    ],
    ids=lambda value: value.kind if isinstance(value, Case) else "",
)
def test_what_pytorch_computes_otherwise_is_refused(case: Case, words: str) -> None:
    model = case.to_model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(EngineError, match=words):
        TorchProgram(model, CPU, channels_last=False)


def test_a_parameter_that_is_computed_is_refused() -> None:
    model = Case(kind="Clip", data=[MAP, ()]).to_model()
    with pytest.raises(EngineError, match=r"\(Clip\): expected a constant as parameter 'x1'"):
        TorchProgram(model, CPU, channels_last=False)


def test_a_shape_that_the_data_decide_is_refused() -> None:
    model = Case(kind="Reshape", data=[MAP], constants=[np.int64([2, -1])]).to_model()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "w"
    with pytest.raises(EngineError, match="expected sizes that are not known = 0 of a Reshape, got 1"):
        TorchProgram(model, CPU, channels_last=False)


def test_truth_values_are_no_result() -> None:
    model = Case(kind="Cast", data=[MAP], attributes={"to": TensorProto.BOOL}).to_model()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    with pytest.raises(EngineError, match=r"\(Cast\): expected floats or int64 as its output, got BOOL"):
        TorchProgram(model, CPU, channels_last=False)


def test_tensors_are_let_go_after_their_last_use() -> None:
    """Ten additions in a row never hold more than two results."""
    names = ["x", *(f"t{index}" for index in range(9)), "y"]
    nodes = [helper.make_node("Add", [a, "x"], [b]) for a, b in pairwise(names)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [100]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "row", values[:1], values[1:]))
    program = TorchProgram(model, CPU, channels_last=False)
    bound = {slot: torch.zeros(100) for slot in (program.inputs["x"], program.outputs["y"])}
    assert program.examine(bound).peak_bytes == 2 * 400


@pytest.fixture(scope="module", params=["rewritten", "plain"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of a random network of 64 x 128 pixels, weights stored in half precision."""
    folder = tmp_path_factory.mktemp(request.param)
    is_rewritten = request.param == "rewritten"
    model = export_network(random_network(64, 128), rewrite=is_rewritten, weights="fp16")
    write_graphs(model, folder, weights="fp16")
    return folder


def make_stage(folder: Path, name: str) -> ModelProto:
    """Return a GPU stage of exported graphs, as `gpu_stages.make_stage` does of a bundle's."""
    if name == "tail":
        parts = {part: make_stage(folder, part) for part in ("decoder", "head", "segmentation")}
        inputs = list(dict.fromkeys(v.name for p in ("segmentation", "decoder") for v in parts[p].graph.input))
        inputs = [one for one in inputs if not one.startswith("g")]
        return merge_stages(parts, name, inputs, ["reconstruction", *LEVEL_MAPS])
    model = load_model(folder / f"{name}.onnx")
    model.graph.name = name
    fold_constants(model)
    return cut(model, "map") if name in ("segmentation", "fused") else model


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("name", ["encoder", "tail", "fused"])
def test_exported_stages_give_what_onnx_runtime_gives(exported: Path, name: str, rng: np.random.Generator) -> None:
    model = make_stage(exported, name)
    onnx.checker.check_model(model, full_check=True)
    fix_batch(model, 2)
    shapes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in model.graph.input}
    inputs = {one: rng.random(shape, np.float32) for one, shape in shapes.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = run(model, inputs)
    for one, expected in zip(found, session.run(list(found), inputs), strict=True):
        assert_close(found[one], expected, "rewrite", "float32")
    if name == "fused":
        uncut = onnxruntime.InferenceSession(str(exported / "fused.onnx"), providers=["CPUExecutionProvider"])
        fused_map = fuse_maps([found[one] for one in LEVEL_MAPS])
        assert_close(fused_map, uncut.run(["map"], inputs)[0], "map", "float32")


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_exported_graphs_keep_their_maps_in_half_precision(
    exported: Path, precision: str, dtype: str, rng: np.random.Generator
) -> None:
    model = make_stage(exported, "fused")
    typed = make_typed(model, precision)
    onnx.checker.check_model(typed, full_check=True)
    image = {"image": rng.random((2, 3, 64, 128), np.float32)}
    maps = []
    for one in (model, typed):
        fix_batch(one, 2)
        found = run(one, image, channels_last=True)
        maps.append(fuse_maps([found[name] for name in LEVEL_MAPS]))
    assert_close(maps[1], maps[0], "map", dtype)
