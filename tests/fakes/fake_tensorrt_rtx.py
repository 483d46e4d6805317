"""A module `tensorrt_rtx` that loads and runs nothing, with the real one's interface; it builds nothing at all.

tests/engines/backends/tensorrt_rtx/test_bindings.py compares its names with the real bindings, which build on any
machine and load on a GPU alone.
"""

import json
import sys
from enum import IntEnum
from typing import Any

import pytest

from tests.fakes.fake_tensorrt import make_fake
from tests.fakes.fake_tensorrt_base import ABSENT, PLAN_MAGIC, Faked
from tests.fakes.fake_tensorrt_run import ICudaEngine, Runtime

VERSION = "1.7.1.116"
CACHE_MAGIC = b"FAKE RUNTIME CACHE "
ENUMS = {
    "EngineValidity": {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2},
    "CudaGraphStrategy": {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1},
}


class RtxRuntime(Runtime):
    __slots__ = ()

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        if "get_engine_validity" in self._lib.knobs.refuses:
            return self._lib.EngineValidity.INVALID, 3
        is_odd = "SUBOPTIMAL" in self._lib.knobs.refuses
        return (self._lib.EngineValidity.SUBOPTIMAL if is_odd else self._lib.EngineValidity.VALID), 0


class IRuntimeCache(Faked):
    """Holds the kernels that were compiled when a context was made."""

    __slots__ = ("_kernels",)

    def __init__(self) -> None:
        self._kernels: list[str] = []

    def deserialize(self, blob: bytes) -> bool:
        if not bytes(blob).startswith(CACHE_MAGIC):
            return False
        self._kernels = json.loads(bytes(blob)[len(CACHE_MAGIC) :])
        return True

    def serialize(self) -> Any:
        return self._lib.IHostMemory(CACHE_MAGIC + json.dumps(self._kernels).encode())


class IRuntimeConfig(Faked):
    __slots__ = ("_cache", "_strategy")

    def __init__(self) -> None:
        self._cache: Any = None
        self._strategy: Any = None

    @property
    def cuda_graph_strategy(self) -> Any:
        return self._strategy

    @cuda_graph_strategy.setter
    def cuda_graph_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> Any:
        return self._lib.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return not self._refuses("set_runtime_cache")


class RtxEngine(ICudaEngine):
    __slots__ = ()
    device_memory_size = ABSENT  # type: ignore[assignment]

    def create_runtime_config(self) -> Any:
        return self._lib.IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any) -> Any:  # type: ignore[override]
        knobs = self._lib.knobs
        if self._refuses("create_execution_context"):
            return None
        cache, kernel = runtime_config._cache, self._plan["name"]
        if kernel not in cache._kernels:
            knobs.compiled.append(kernel)
            cache._kernels.append(kernel)
        knobs.strategies.append(runtime_config._strategy.name)
        return self._lib.IExecutionContext(self)


def make_plan(name: str, batch: int = 1) -> bytes:
    """Return a plan that the fake loads: an image goes in, a map comes out."""
    plan = {
        "name": name,
        "version": VERSION,
        "flags": [],
        "inputs": [["image", "HALF", [-1, 3, 8, 8]]],
        "outputs": [["map", "FLOAT", [-1, 1, 8, 8]]],
        "shapes": {"image": [batch, 3, 8, 8]},
        "layers": [{"kind": "CONVOLUTION", "name": "conv", "type": "HALF"}],
    }
    return PLAN_MAGIC + json.dumps(plan).encode()


def make_fake_rtx() -> Any:
    """Return the module."""
    lib = make_fake("11.4.0.106")
    lib.__name__, lib.__version__ = "tensorrt_rtx", VERSION
    lib.knobs.compiled, lib.knobs.strategies = [], []
    for name, members in ENUMS.items():
        setattr(lib, name, IntEnum(name, members))
    classes = {"Runtime": RtxRuntime, "ICudaEngine": RtxEngine, **{one.__name__: one for one in NEW}}
    for name, base in classes.items():
        setattr(lib, name, type(name, (base,), {"__slots__": (), "_lib": lib}))
    return lib


NEW = (IRuntimeCache, IRuntimeConfig)


def install(patch: pytest.MonkeyPatch) -> Any:
    """Let `import tensorrt_rtx` give the fake for one test, and return it."""
    lib = make_fake_rtx()
    patch.setitem(sys.modules, "tensorrt_rtx", lib)
    return lib
