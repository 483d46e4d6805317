"""One plan of TensorRT-RTX on a GPU, and what its driver has finished of it, kept for the next start."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.config import find_cuda_graphs
from ndp_rt.engines.backends.tensorrt.adapter import make_runtime
from ndp_rt.engines.backends.tensorrt.engine import TensorRtEngine
from ndp_rt.engines.backends.tensorrt.library import describe
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log
from ndp_rt.errors import EngineError, StorageError
from ndp_rt.files import write_atomically

if TYPE_CHECKING:
    import tensorrt_rtx as trt

log = logging.getLogger("ndp_rt")
# The bits of EngineInvalidityDiagnostics, the lowest first.
REASONS = (
    *("version mismatch", "unsupported cc", "old cuda driver", "old cuda runtime", "insufficient gpu memory"),
    *("malformed engine", "cuda error"),
)


class TensorRtRtxEngine(TensorRtEngine):
    """See `TensorRtEngine`; its kernels are compiled when its context is made, unless they are in the cache."""

    def __init__(self, lib: Any, path: Path, batch: int, cache_path: Path) -> None:
        """Load a plan onto the thread's current GPU.

        Args:
            lib: the module tensorrt_rtx.
            path: the plan.
            batch: its only batch size.
            cache_path: where compiled kernels are kept; one that is missing, damaged, or of another GPU or driver is
                replaced.

        Raises:
            EngineError: the plan cannot be read, does not fit this GPU or this TensorRT-RTX, or is refused.
            DeviceError: no GPU, a driver that is too old, or no room.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: the engine cannot be read ({error.strerror}).") from error
        runtime: trt.Runtime = make_runtime(lib, allow_host_code=False)
        _check_validity(lib, runtime, path, content)
        before = get_log(lib).error_count
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineError(f"{path}: {describe(lib)} refuses the engine: {describe_errors(lib, before)}.")
        self._cache_path, self._kept = cache_path, b""
        super().__init__(lib, runtime, engine, batch, len(content), self._make_context)

    def _make_context(self, engine: "trt.ICudaEngine") -> "trt.IExecutionContext | None":
        lib = self._lib
        config: trt.IRuntimeConfig = engine.create_runtime_config()
        strategies = lib.CudaGraphStrategy
        is_own = find_cuda_graphs() == "engine"
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if is_own else strategies.DISABLED
        self._cache: trt.IRuntimeCache = config.create_runtime_cache()
        if self._cache_path.is_file():
            content = self._cache_path.read_bytes()
            if self._cache.deserialize(content):
                self._kept = content
            else:
                log.info("%s: was made by another GPU, driver or TensorRT-RTX; it is replaced", self._cache_path)
        if not config.set_runtime_cache(self._cache):
            log.warning("%s: %s takes no runtime cache; every start compiles", self._cache_path, describe(lib))
        context: trt.IExecutionContext | None = engine.create_execution_context(config)
        return context

    def keep(self) -> None:
        """Store what has been compiled since the plan was loaded; the GPU is idle. A folder that is full only logs."""
        made: trt.IHostMemory = self._cache.serialize()
        content = bytes(made)
        if content == self._kept:
            return
        try:
            write_atomically(self._cache_path, content, "Every start compiles the engine's kernels until then.")
        except StorageError as error:
            log.warning("%s", error)
        else:
            self._kept = content


def _check_validity(lib: Any, runtime: "trt.Runtime", path: Path, content: bytes) -> None:
    """Check that a plan fits, before it is loaded; raises EngineError with all reasons."""
    validity, reasons = runtime.get_engine_validity(content)
    if validity == lib.EngineValidity.SUBOPTIMAL:
        log.warning("%s: was built for another GPU than this one, and may be slower here", path)
    if validity != lib.EngineValidity.INVALID:
        return
    words = ", ".join(word for number, word in enumerate(REASONS) if int(reasons) >> number & 1)
    raise EngineError(
        f"{path}: {describe(lib)} says that the engine does not fit here: {words or 'no reason given'}; it is not used."
    )
