"""A module `tensorrt` that builds and runs nothing and keeps the real one's interface, version by version.

tests/engines/backends/tensorrt/test_bindings.py compares every public name and parameter here with the real bindings.
What the
real library leaves undone is left undone here: objects that have to outlive a call are held weakly, setters answer
False, a network before 10 does not pass types on, and unknown attributes cannot be set.

In place of an ONNX file it reads JSON, whatever comes before it: {"inputs": [{"name", "dtype", "shape"}], "outputs":
[names], "errors": [texts], "layers": [{"kind", "name", "inputs": [names], "output", "dtype", "is_set"}]}.
"""

import importlib.metadata
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType
from typing import Any

import pytest

from tests.fakes.fake_tensorrt_base import ABSENT, CACHE_MAGIC, PLAN_MAGIC, Absent
from tests.fakes.fake_tensorrt_build import Builder, IBuilderConfig, IOptimizationProfile, ITimingCache
from tests.fakes.fake_tensorrt_network import (
    IHostMemory,
    ILayer,
    ILogger,
    INetworkDefinition,
    IProgressMonitor,
    ITensor,
    OnnxParser,
    ParserError,
)
from tests.fakes.fake_tensorrt_run import (
    EngineInspector,
    ICudaEngine,
    IExecutionContext,
    OnnxParserRefitter,
    Refitter,
    Runtime,
)

__all__ = ["CACHE_MAGIC", "CLASSES", "ENUMS", "PLAN_MAGIC", "Absent", "Knobs", "install", "make_fake"]

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


CLASSES: tuple[type, ...] = (
    *(ILogger, IProgressMonitor, IHostMemory, ITensor, ILayer, INetworkDefinition, ParserError, OnnxParser),
    *(IOptimizationProfile, ITimingCache, IBuilderConfig, Builder, Runtime, ICudaEngine, IExecutionContext),
    *(EngineInspector, Refitter, OnnxParserRefitter),
)


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
    find = importlib.metadata.version

    def find_fake(name: str) -> str:
        if name == "tensorrt":
            raise importlib.metadata.PackageNotFoundError(name)
        return version if name == "tensorrt-cu12" else find(name)

    patch.setattr(importlib.metadata, "version", find_fake)
    return lib
