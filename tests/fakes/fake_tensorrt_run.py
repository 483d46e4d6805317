"""The fake TensorRT's runtime, engine, inspector and refitter."""

import json
from typing import Any

from tests.fakes.fake_tensorrt_base import PLAN_MAGIC, Faked, make_with_driver


class Runtime(Faked):
    __slots__ = ("_is_allowed",)

    def __init__(self, logger: Any) -> None:
        make_with_driver(self, logger)
        self._is_allowed = False

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._is_allowed

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, is_allowed: bool) -> None:
        self._is_allowed = is_allowed

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        lib = self._lib
        if self._refuses("deserialize_cuda_engine"):
            return None
        try:
            plan = json.loads(bytes(serialized_engine).removeprefix(PLAN_MAGIC))
        except ValueError:
            self._log("ERROR", "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        is_portable = "VERSION_COMPATIBLE" in plan["flags"]
        if is_portable and not self._is_allowed:
            self._log("ERROR", "Host executable code is not allowed")
            return None
        if not is_portable and plan["version"] != lib.__version__:
            self._log("ERROR", "The engine plan file is not compatible with this version of TensorRT")
            return None
        return lib.ICudaEngine(plan)


class ICudaEngine(Faked):
    __slots__ = ("_has_weights", "_plan", "_tensors")

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._tensors = {name: (dtype, tuple(shape)) for name, dtype, shape in (*plan["inputs"], *plan["outputs"])}
        self._has_weights = "STRIP_PLAN" not in plan["flags"]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size(self) -> int:
        return 1000

    @property
    def device_memory_size_v2(self) -> int:
        return 1000

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        is_input = any(name == one[0] for one in self._plan["inputs"])
        return self._lib.TensorIOMode["INPUT" if is_input else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._lib.DataType[self._tensors[name][0]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][1]

    def create_execution_context(self) -> Any:
        if self._refuses("create_execution_context"):
            return None
        return self._lib.IExecutionContext(self)

    def create_engine_inspector(self) -> Any:
        return self._lib.EngineInspector(self)


class IExecutionContext(Faked):
    __slots__ = ("_addresses", "_engine", "_shapes")

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._refuses("set_input_shape") or list(shape) != list(self._engine._plan["shapes"][name]):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, _, _ in self._engine._plan["inputs"] if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in self._engine._tensors[name][1])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._refuses("set_tensor_address"):
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        if self._refuses("execute_async_v3"):
            return False
        assert engine._has_weights, "an engine without weights was run"
        assert set(self._addresses) == set(engine._tensors) and not self.infer_shapes()
        self._lib.knobs.runs.append((stream_handle, dict(self._addresses)))
        return True


# How the real inspector writes a type, before 10 and from 10 on; kernels as it names them.
WORDS = {
    "FLOAT": ("Row major linear FP32", "Float"),
    "TF32": ("Row major linear FP32", "Float"),
    "HALF": ("Channel major FP16 format where channel % 8 == 0", "Half"),
    "BF16": ("", "BFloat16"),
    "INT8": ("Thirty-two wide channel vectorized row major Int8 format.", "Int8"),
    "BOOL": ("Row major linear boolean format", "Bool"),
}
LAYERS = {
    "CONVOLUTION": ("CaskConvolution", "Convolution"),
    "DECONVOLUTION": ("CaskDeconvolutionV2", "Convolution"),
    "MATRIX_MULTIPLY": ("gemm", ""),
}


class EngineInspector(Faked):
    __slots__ = ("_context", "_engine")

    def __init__(self, engine: Any) -> None:
        self._engine, self._context = engine, None

    @property
    def execution_context(self) -> Any:
        return self._context

    @execution_context.setter
    def execution_context(self, context: Any) -> None:
        self._context = context

    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
        knobs, is_new = self._lib.knobs, self._lib.__version__.startswith(("10", "11"))
        if knobs.fails_with_context and self._context is not None:
            return ""
        layers: list[Any] = []
        for one in self._engine._plan["layers"]:
            words = WORDS[one["type"]][is_new]
            if not is_new and self._context is None:
                words = "N/A due to dynamic shapes"
            kind, parameter = LAYERS.get(one["kind"], ("PointWiseV2", "PointWise"))
            tactic = "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32" if one["type"] == "TF32" else "sm80_xmma_x"
            layer = {
                "Name": f"{one['name']}\x1e",
                "LayerType": kind,
                "Inputs": [{"Name": "x", "Format/Datatype": words}],
                "Outputs": [{"Name": "y", "Format/Datatype": words}],
                "ParameterType": parameter,
                "TacticName": "" if kind == "PointWiseV2" else tactic,
            }
            layers.append(one["name"] if knobs.is_silent else layer)
        # The real one writes control characters as they are.
        return json.dumps({"Layers": layers, "Bindings": []}).replace("\\u001e", "\x1e")


class Refitter(Faked):
    __slots__ = ("_engine",)

    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine = engine

    def refit_cuda_engine(self) -> bool:
        return not self._refuses("refit_cuda_engine")


class OnnxParserRefitter(Faked):
    __slots__ = ("_refitter",)

    def __init__(self, refitter: Any, logger: Any) -> None:
        self._refitter = refitter

    def refit_from_file(self, model: str) -> bool:
        if self._refuses("refit_from_file"):
            return False
        self._refitter._engine._has_weights = True
        return True

    @property
    def num_errors(self) -> int:
        return 1

    def get_error(self, index: int) -> Any:
        return self._lib.ParserError(index, "no such weights")
