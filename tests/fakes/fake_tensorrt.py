"""A module `tensorrt` that builds and runs nothing and keeps the real one's interface, version by version.

tests/engines/tensorrt/test_bindings.py compares every public name and parameter here with the real bindings. What the
real library leaves undone is left undone here: objects that have to outlive a call are held weakly, setters answer
False, a network before 10 does not pass types on, and unknown attributes cannot be set.

In place of an ONNX file it reads JSON, whatever comes before it: {"inputs": [{"name", "dtype", "shape"}], "outputs":
[names], "errors": [texts], "layers": [{"kind", "name", "inputs": [names], "output", "dtype", "is_set"}]}.
"""

import json
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLAN_MAGIC, CACHE_MAGIC = b"FAKE PLAN ", b"FAKE CACHE "
FLAGS = (
    *("FP16", "INT8", "DEBUG", "GPU_FALLBACK", "REFIT", "DISABLE_TIMING_CACHE", "TF32", "SPARSE_WEIGHTS"),
    *("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS", "BF16", "VERSION_COMPATIBLE", "STRIP_PLAN"),
    *("REFIT_IDENTICAL",),
)
ENUMS: dict[str, tuple[str, ...]] = {
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "BuilderFlag": FLAGS,
    "MemoryPoolType": ("WORKSPACE", "DLA_MANAGED_SRAM"),
    "ProfilingVerbosity": ("LAYER_NAMES_ONLY", "NONE", "DETAILED"),
    "DataType": ("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "BF16"),
    "TensorFormat": ("LINEAR", "CHW2", "HWC8"),
    "TacticSource": ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"),
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
    "LayerInformationFormat": ("ONELINE", "JSON"),
    "HardwareCompatibilityLevel": ("NONE", "AMPERE_PLUS"),
    "LayerType": (
        *("CONVOLUTION", "ACTIVATION", "ELEMENTWISE", "CONSTANT", "SHUFFLE", "DECONVOLUTION", "MATRIX_MULTIPLY"),
        *("IDENTITY", "SOFTMAX", "QUANTIZE", "DEQUANTIZE", "CAST"),
    ),
}
# Names that not every version has; a class stands for its members too.
SINCE = {
    "HardwareCompatibilityLevel": (8, 6),
    "IBuilderConfig.hardware_compatibility_level": (8, 6),
    "BuilderFlag.VERSION_COMPATIBLE": (8, 6),
    "Runtime.engine_host_code_allowed": (8, 6),
    "LayerType.CAST": (8, 6),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": (10, 0),
    "DataType.BF16": (10, 0),
    "BuilderFlag.BF16": (10, 0),
    "BuilderFlag.STRIP_PLAN": (10, 0),
    "BuilderFlag.REFIT_IDENTICAL": (10, 0),
    "OnnxParserRefitter": (10, 0),
    "IProgressMonitor": (10, 0),
    "IBuilderConfig.progress_monitor": (10, 0),
    "ParserError.node_name": (10, 0),
    "ICudaEngine.device_memory_size_v2": (10, 1),
}
GONE = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": (11, 0),
    "BuilderFlag.FP16": (11, 0),
    "BuilderFlag.INT8": (11, 0),
    "BuilderFlag.BF16": (11, 0),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": (11, 0),
    "BuilderFlag.PREFER_PRECISION_CONSTRAINTS": (11, 0),
    "ILayer.precision": (11, 0),
    "ILayer.set_output_type": (11, 0),
    "ILayer.output_type_is_set": (11, 0),
    "ICudaEngine.device_memory_size": (11, 0),
    "TacticSource.CUBLAS": (11, 0),
    "TacticSource.CUBLAS_LT": (11, 0),
    "TacticSource.CUDNN": (11, 0),
}


@dataclass
class Knobs:
    """How a fake behaves, and what it saw."""

    gpu: str = "Toy H200"
    has_driver: bool = True
    refuses: set[str] = field(default_factory=set)  # methods that answer False or None, such as "execute_async_v3"
    error: str = "something is wrong"  # what is logged then
    retypes: dict[str, str] = field(default_factory=dict)  # what the builder makes of a type, such as HALF: FLOAT
    is_silent: bool = False  # the inspector knows names alone
    fails_with_context: bool = False  # the inspector fails if it has an execution context
    builds: list[dict[str, Any]] = field(default_factory=list)  # what each build was asked for
    runs: list[tuple[int, dict[str, int]]] = field(default_factory=list)  # stream, addresses
    cache_hits: int = 0
    logger: Any = None  # the first; the real library keeps it too


def make_fake(version: str) -> Any:
    """Return a module that has what this version of TensorRT has."""
    lib = ModuleType("tensorrt")
    lib.__version__ = version  # type: ignore[attr-defined]
    lib.__file__ = "/not-there/tensorrt/__init__.py"
    lib.knobs = Knobs()  # type: ignore[attr-defined]
    numbers = tuple(map(int, version.split(".")[:2]))

    def is_there(name: str) -> bool:
        return SINCE.get(name, (0, 0)) <= numbers < GONE.get(name, (99, 0))

    for name, members in ENUMS.items():
        if is_there(name):
            setattr(lib, name, IntEnum(name, [m for m in members if is_there(f"{name}.{m}")], start=0))
    for base in CLASSES:
        absent = {member: ABSENT for member in dir(base) if not is_there(f"{base.__name__}.{member}")}
        if is_there(base.__name__):
            made = type(base.__name__, (base,), {"__slots__": (), "_lib": lib, **absent})
            setattr(lib, base.__name__, made)
    return lib


def install(patch: pytest.MonkeyPatch, version: str) -> Any:
    """Let `import tensorrt` give a fake of this version for one test, and return it."""
    lib = make_fake(version)
    patch.setitem(sys.modules, "tensorrt", lib)
    for name in ("backend", "plan_manifest"):
        patch.setattr(f"ndp_rt.engines.tensorrt.{name}.find_distribution", lambda: ("tensorrt-cu12", version))
    return lib


class Absent:
    """An attribute that a version has not."""

    def __get__(self, owner: object, kind: type) -> None:
        raise AttributeError("this version has no such attribute")

    def __set__(self, owner: object, value: object) -> None:
        raise AttributeError("this version has no such attribute")


ABSENT = Absent()


class Faked:
    """What every class has: the module it belongs to, and refusals that log."""

    __slots__ = ("__weakref__",)
    _lib: Any = None

    def _refuses(self, name: str) -> bool:
        if name in self._lib.knobs.refuses:
            self._log("ERROR", self._lib.knobs.error)
            return True
        return False

    def _log(self, severity: str, message: str) -> None:
        logger = self._lib.knobs.logger
        if logger is not None:
            logger.log(self._lib.ILogger.Severity[severity], message)


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    _lib: Any = None

    def __init__(self) -> None:
        self._is_made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    _lib: Any = None

    def __init__(self) -> None:
        self._is_made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(Faked):
    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __bytes__(self) -> bytes:
        return self._content

    @property
    def nbytes(self) -> int:
        return len(self._content)


class ITensor(Faked):
    __slots__ = ("_dtype", "_format", "_name", "_shape")

    def __init__(self, name: str, dtype: str, shape: Iterable[int]) -> None:
        self._name, self._dtype, self._shape, self._format = name, dtype, tuple(shape), 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def dtype(self) -> Any:
        return self._lib.DataType[self._dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def allowed_formats(self) -> int:
        return self._format

    @allowed_formats.setter
    def allowed_formats(self, formats: int) -> None:
        self._format = formats


class ILayer(Faked):
    __slots__ = ("_inputs", "_is_set", "_kind", "_name", "_outputs", "_precision", "_set_type")

    def __init__(self, kind: str, name: str, inputs: list[Any], output: Any, is_set: bool) -> None:
        self._kind, self._name, self._inputs, self._outputs = kind, name, inputs, [output]
        self._precision: Any = None
        self._set_type: Any = None
        self._is_set = is_set

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> Any:
        return self._lib.LayerType[self._kind]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return 1

    def get_input(self, index: int) -> Any:
        return self._inputs[index] if index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._outputs[index] if index < 1 else None

    @property
    def precision(self) -> Any:
        return self._precision

    @precision.setter
    def precision(self, dtype: Any) -> None:
        self._precision = dtype

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._set_type = dtype

    def output_type_is_set(self, index: int) -> bool:
        return self._is_set or self._set_type is not None


class INetworkDefinition(Faked):
    __slots__ = ("_flags", "_inputs", "_layers", "_outputs", "_parser", "_types")

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []
        self._types: dict[str, str] = {}  # as the file says, whatever the tensors say
        self._parser: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class ParserError(Faked):
    __slots__ = ("_index", "_text")

    def __init__(self, index: int, text: str) -> None:
        self._index, self._text = index, text

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return f"node_{self._index}"


class OnnxParser(Faked):
    __slots__ = ("_errors", "_network")

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._errors = network, []
        network._parser = weakref.ref(self)

    def parse_from_file(self, model: str) -> bool:
        content = Path(model).read_bytes()
        document = json.loads(content[content.index(b'{"') :])
        self._errors = [self._lib.ParserError(i, text) for i, text in enumerate(document.get("errors", []))]
        if self._errors:
            return False
        lib, network = self._lib, self._network
        is_typed = lib.__version__.split(".")[0] not in ("8", "9")
        tensors: dict[str, Any] = {}
        for one in document["inputs"]:
            tensors[one["name"]] = lib.ITensor(one["name"], one["dtype"], one["shape"])
            network._inputs.append(tensors[one["name"]])
            network._types[one["name"]] = one["dtype"]
        for one in document["layers"]:
            knows_own = is_typed or one["kind"] in ("CONSTANT", "CAST", "DEQUANTIZE", "QUANTIZE") or one.get("is_set")
            shape = next((tensors[name].shape for name in one["inputs"]), (1,))
            tensors[one["output"]] = lib.ITensor(one["output"], one["dtype"] if knows_own else "FLOAT", shape)
            inputs = [tensors[name] for name in one["inputs"]]
            layer = lib.ILayer(one["kind"], one["name"], inputs, tensors[one["output"]], one.get("is_set", False))
            network._layers.append(layer)
            network._types[one["output"]] = one["dtype"]
        for name in document["outputs"]:
            given = lib.ITensor(
                name, network._types[name], tensors[name].shape
            )  # its type is the file's in any version
            network._outputs.append(given)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class IOptimizationProfile(Faked):
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class ITimingCache(Faked):
    __slots__ = ("_document",)

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def serialize(self) -> Any:
        return self._lib.IHostMemory(CACHE_MAGIC + json.dumps(self._document).encode())


class IBuilderConfig(Faked):
    __slots__ = ("_cache", "_flags", "_level", "_limits", "_monitor", "_profiles", "_sources", "_verbosity")

    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._sources = 0b11111
        self._limits: dict[str, int] = {}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self._monitor: Any = None
        self._level: Any = None
        self._verbosity: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def get_tactic_sources(self) -> int:
        return self._sources

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._sources = tactic_sources
        return not self._refuses("set_tactic_sources")

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        if self._refuses("add_optimization_profile"):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        lib, content = self._lib, bytes(serialized_timing_cache)
        if not content:
            return lib.ITimingCache({"version": lib.__version__, "gpu": lib.knobs.gpu, "kernels": []})
        if not content.startswith(CACHE_MAGIC):
            self._log("ERROR", "the timing cache is corrupt")
            return None
        return lib.ITimingCache(json.loads(content[len(CACHE_MAGIC) :]))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        document = cache._document
        if not ignore_mismatch and (document["version"], document["gpu"]) != (
            self._lib.__version__,
            self._lib.knobs.gpu,
        ):
            return False
        self._cache = weakref.ref(cache)
        return True

    def get_timing_cache(self) -> Any:
        return self._cache()

    @property
    def profiling_verbosity(self) -> Any:
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, verbosity: Any) -> None:
        self._verbosity = verbosity

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._level

    @hardware_compatibility_level.setter
    def hardware_compatibility_level(self, level: Any) -> None:
        self._level = level

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._monitor = weakref.ref(monitor)


class Builder(Faked):
    __slots__ = ()

    def __init__(self, logger: Any) -> None:
        _make(self, logger)

    def create_network(self, flags: int = 0) -> Any:
        return self._lib.INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._lib.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._lib.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        lib, cache = self._lib, config._cache()
        assert network._parser() is not None, "the parser went away, and the network's weights with it"
        assert cache is not None, "the timing cache went away"
        lib.knobs.builds.append(
            {
                "flags": set(config._flags),
                "network_flags": network._flags,
                "limits": dict(config._limits),
                "sources": config._sources,
                "verbosity": config._verbosity.name if config._verbosity is not None else None,
                "level": config._level.name if config._level is not None else None,
                "profiles": [dict(profile._shapes) for profile in config._profiles],
                "held": {
                    layer.name: layer._precision.name for layer in network._layers if layer._precision is not None
                },
                "formats": {tensor.name: tensor.allowed_formats for tensor in (*network._inputs, *network._outputs)},
            }
        )
        self._log("VERBOSE", "Applying generic optimizations")
        self._log("INFO", "Detected 1 inputs and 1 output network tensors.")
        if config._monitor is not None:
            monitor = config._monitor()
            assert monitor is not None, "the progress monitor went away"
            monitor.phase_start("Building the engine", None, 2)
            is_wanted = [monitor.step_complete("Building the engine", step) for step in range(2)]
            monitor.phase_finish("Building the engine")
            if not all(is_wanted):
                return None
        if self._refuses("build_serialized_network"):
            return None
        lib.knobs.cache_hits += sum(layer.name in cache._document["kernels"] for layer in network._layers)
        cache._document["kernels"] += [layer.name for layer in network._layers]
        return lib.IHostMemory(PLAN_MAGIC + json.dumps(self._describe(network, config)).encode())

    def _describe(self, network: Any, config: Any) -> dict[str, Any]:
        lib = self._lib
        layers = [
            {"kind": layer._kind, "name": layer.name, "type": self._choose_type(layer, network, config)}
            for layer in network._layers
            if layer._kind != "CONSTANT"
        ]
        (profile,) = config._profiles
        return {
            "version": lib.__version__,
            "gpu": lib.knobs.gpu,
            "flags": sorted(config._flags),
            "is_for_any_gpu": config._level is not None and config._level.name == "AMPERE_PLUS",
            "layers": layers,
            "inputs": [(one.name, one._dtype, one.shape) for one in network._inputs],
            "outputs": [(one.name, one._dtype, one.shape) for one in network._outputs],
            "shapes": {name: shapes[1] for name, shapes in profile._shapes.items()},
        }

    def _choose_type(self, layer: Any, network: Any, config: Any) -> str:
        """Return what a layer computes in; before 10, unless it is held to a type, whatever flags allow."""
        first = layer._inputs[0].name
        behind = next((other for other in network._layers if other._outputs[0].name == first), None)
        kind: str = network._types[first]
        if behind is not None and behind._kind == "DEQUANTIZE":
            kind = "INT8"
        elif not self._lib.__version__.startswith(("10", "11")):
            is_held = layer._precision is not None and "OBEY_PRECISION_CONSTRAINTS" in config._flags
            kind = layer._precision.name if is_held else "HALF" if "FP16" in config._flags else "FLOAT"
        kind = self._lib.knobs.retypes.get(kind, kind)
        return "TF32" if kind == "FLOAT" and "TF32" in config._flags else kind


class Runtime(Faked):
    __slots__ = ("_is_allowed",)

    def __init__(self, logger: Any) -> None:
        _make(self, logger)
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


def _make(made: Any, logger: Any) -> None:
    """What making a builder or runtime does: without a driver the bindings get a null pointer and say so their way."""
    knobs = made._lib.knobs
    assert getattr(logger, "_is_made", False), "ILogger.__init__ was not called"
    assert knobs.logger in (None, logger), "TensorRT keeps the first logger, and got another"
    knobs.logger = logger
    if not knobs.has_driver:
        made._log("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


CLASSES: tuple[type, ...] = (
    *(ILogger, IProgressMonitor, IHostMemory, ITensor, ILayer, INetworkDefinition, ParserError, OnnxParser),
    *(IOptimizationProfile, ITimingCache, IBuilderConfig, Builder, Runtime, ICudaEngine, IExecutionContext),
    *(EngineInspector, Refitter, OnnxParserRefitter),
)
