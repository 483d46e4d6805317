"""One plan on a GPU."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backends.tensorrt.adapter import find_scratch_bytes
from ndp_rt.engines.backends.tensorrt.layers import count_layers, sum_products
from ndp_rt.engines.backends.tensorrt.library import describe
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log
from ndp_rt.engines.backends.tensorrt.network import name_dtype
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError
from ndp_rt.program.tensors import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

ALIGNMENT_BYTES = 256


class TensorRtEngine:
    """One engine with one execution context; see `ndp_rt.engines.engine.DeviceEngine`."""

    def __init__(
        self,
        lib: Any,
        runtime: "trt.Runtime",
        engine: "trt.ICudaEngine",
        batch: int,
        weight_bytes: int,
        make_context: "Callable[[trt.ICudaEngine], trt.IExecutionContext | None]",
    ) -> None:
        """Make the context and fix its shapes.

        Args:
            lib: the library's module.
            runtime: what loaded the engine; it has to live as long.
            engine: of one profile, whose only batch size is `batch`.
            batch: as above.
            weight_bytes: what the engine's weights take on the device, near enough.
            make_context: makes the engine's context; None: it cannot.

        Raises:
            DeviceError: the device has no room for the context's scratch memory.
            EngineError: the engine does not take this batch size.
        """
        self._lib = lib
        before, scratch_bytes = get_log(lib).error_count, find_scratch_bytes(lib, engine)
        context = make_context(engine)
        if context is None:
            raise DeviceError(
                f"the GPU has no room for an engine's scratch memory, {scratch_bytes} bytes beside {weight_bytes} of "
                f"weights: {describe_errors(lib, before)}. Use smaller batches, or free some of its memory."
            )
        self._runtime: trt.Runtime | None = runtime
        self._engine: trt.ICudaEngine | None = engine
        self._context: trt.IExecutionContext | None = context
        self.held_bytes = weight_bytes + scratch_bytes
        self.inputs, self.outputs = _fix_shapes(lib, engine, context, batch)

    def bind(self, pointers: Mapping[str, int]) -> None:
        context = self._find_context()
        for name in (*self.inputs, *self.outputs):
            pointer = pointers.get(name)
            if pointer is None:
                raise InputError(f"expected an address of '{name}', got those of {', '.join(pointers) or 'nothing'}.")
            if not pointer or pointer % ALIGNMENT_BYTES:
                raise InputError(
                    f"expected device memory aligned to {ALIGNMENT_BYTES} bytes for '{name}', got {pointer:#x}."
                )
            before = get_log(self._lib).error_count
            if not context.set_tensor_address(name, pointer):
                raise InputError(f"TensorRT refuses {pointer:#x} as '{name}': {describe_errors(self._lib, before)}.")

    def enqueue(self, stream: int) -> None:
        context = self._find_context()
        before = get_log(self._lib).error_count
        if not context.execute_async_v3(stream):
            raise EngineError(f"{describe(self._lib)} refuses to run: {describe_errors(self._lib, before)}.")

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return the layers by kind and type as the inspector reports them; empty where it reports none."""
        lib, context = self._lib, self._find_context()
        engine = self._engine
        assert engine is not None
        # With the context's shapes it knows the formats of inputs whose batch is open. On some GPUs of the Blackwell
        # generation 10.x fails with a context and succeeds without.
        first: trt.EngineInspector = engine.create_engine_inspector()
        first.execution_context = context
        counts = count_layers(first.get_engine_information(lib.LayerInformationFormat.JSON))
        if set(sum_products(counts)) <= {"unknown"}:
            second: trt.EngineInspector = engine.create_engine_inspector()
            counts = count_layers(second.get_engine_information(lib.LayerInformationFormat.JSON)) or counts
        return counts

    def close(self) -> None:
        self._context = self._engine = self._runtime = None

    def _find_context(self) -> "trt.IExecutionContext":
        if self._context is None:
            raise ClosedError("the engine is closed. Load it again.")
        return self._context


def _fix_shapes(
    lib: Any, engine: "trt.ICudaEngine", context: "trt.IExecutionContext", batch: int
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Set every input's shape to the batch, and return what goes in and out."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == lib.TensorIOMode.INPUT]
    before = get_log(lib).error_count
    for name in inputs:
        shape = (batch, *tuple(engine.get_tensor_shape(name))[1:])
        if not context.set_input_shape(name, shape):
            raise EngineError(f"TensorRT refuses {list(shape)} for '{name}': {describe_errors(lib, before)}.")
    unknown = context.infer_shapes()
    if unknown:
        raise EngineError(
            f"expected an engine of one batch size, got one that leaves the shapes of {', '.join(unknown)} open."
        )
    specs = {name: _describe(engine, context, name) for name in names}
    outputs = [name for name in names if name not in inputs]
    return {name: specs[name] for name in inputs}, {name: specs[name] for name in outputs}


def _describe(engine: "trt.ICudaEngine", context: "trt.IExecutionContext", name: str) -> TensorSpec:
    dtype: trt.DataType = engine.get_tensor_dtype(name)  # by name: trt.nptype breaks on 8.5 with NumPy 1.24 to 1.26
    return TensorSpec(name=name, shape=tuple(context.get_tensor_shape(name)), dtype=name_dtype(dtype.name, name))
