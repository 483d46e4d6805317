"""One typed ONNX stage through PyTorch, on the memory and the stream that it is given."""

import contextlib
import ctypes
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ndp_rt.engines.backends.torch.backend import COMPUTE_OPERATORS, import_torch
from ndp_rt.engines.engine import DTYPE_BYTES, one_line
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError, NdpRtError
from ndp_rt.program.tensors import TensorSpec

TF32_CAPABILITY = (8, 0)
# PyTorch's switches for TF32 and for cuDNN's algorithms are the process's, so they are set around each enqueue, by one
# thread at a time, and put back.
_SWITCHES = threading.Lock()


class TorchCudaEngine:
    """One stage for one precision and batch size; see `ndp_rt.engines.engine.DeviceEngine`."""

    def __init__(self, model: Any, device: Any, precision: str) -> None:
        """Load the constants, run once on zeros and check the types of what comes out.

        Args:
            model: an onnx.ModelProto with every shape fixed.
            device: a torch.device.
            precision: what the graph's types say, and whether float32 products may round to TF32.

        Raises:
            EngineError: the graph cannot be run, or computes in other types than it says.
            DeviceError: memory ran out.
        """
        from ndp_rt.engines.backends.torch.interpreter import TorchProgram

        self._torch = import_torch()
        self._device = device
        self._precision = precision
        self._is_closed = False
        self._bound: dict[int, Any] | None = None
        self._streams: dict[int, Any] = {}
        self.inputs = {value.name: _describe(value) for value in model.graph.input}
        self.outputs = {value.name: _describe(value) for value in model.graph.output}
        # Tensor cores read [n, h, w, c]; without them PyTorch's own layout needs no conversion.
        with _translate_errors(self._torch, f"loading stage '{model.graph.name}'"):
            self._program = TorchProgram(model, device, channels_last=precision != "fp32")
            bound = {slot: self._make_zeros(spec) for slot, spec in self._list_slots()}
            with self._torch.inference_mode(), self._switches():
                examination = self._program.examine(bound)
            if device.type == "cuda":  # the allocator keeps memory for each stream; this one is not used again
                del bound
                self._torch.cuda.synchronize(device)
                self._torch.cuda.empty_cache()
        # Weights, and the most that lies between two calls, which PyTorch's allocator keeps; not what cuDNN takes.
        self.held_bytes = self._program.weight_bytes + examination.peak_bytes
        self._counts = self._name_counts(examination.counts)

    def bind(self, pointers: Mapping[str, int]) -> None:
        self._check_open()
        bound = {}
        for name, spec in (self.inputs | self.outputs).items():
            address = pointers.get(name, 0)
            if not address or address % DTYPE_BYTES[spec.dtype]:
                came = f"{address:#x}" if name in pointers else "none"
                raise InputError(
                    f"expected the address of '{name}', {spec.dtype} {list(spec.shape)}, aligned to "
                    f"{DTYPE_BYTES[spec.dtype]} bytes, got {came}. Bind every tensor of the engine."
                )
            slots = self._program.inputs if name in self.inputs else self._program.outputs
            bound[slots[name]] = wrap_memory(self._torch, self._device, address, spec)
        self._bound = bound

    def enqueue(self, stream: int) -> None:
        self._check_open()
        if self._bound is None:
            raise EngineError("nothing is bound to the engine. Call bind() first.")
        watched = _translate_errors(self._torch, "running a stage")
        with watched, self._on_stream(stream), self._torch.inference_mode(), self._switches():
            self._program.run(self._bound)

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        self._check_open()
        return {kind: dict(found) for kind, found in self._counts.items()}

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._bound = None
            self.held_bytes = 0
            self._streams.clear()
            del self._program

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the engine is closed. Load it again.")

    def _list_slots(self) -> list[tuple[int, TensorSpec]]:
        pairs = ((self._program.inputs, self.inputs), (self._program.outputs, self.outputs))
        return [(slots[name], spec) for slots, specs in pairs for name, spec in specs.items()]

    def _make_zeros(self, spec: TensorSpec) -> Any:
        return self._torch.zeros(spec.shape, dtype=getattr(self._torch, spec.dtype), device=self._device)

    def _on_stream(self, stream: int) -> contextlib.AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        if stream not in self._streams:
            self._streams[stream] = self._torch.cuda.ExternalStream(stream, device=self._device)
        context: contextlib.AbstractContextManager[Any] = self._torch.cuda.stream(self._streams[stream])
        return context

    def _switches(self) -> contextlib.AbstractContextManager[None]:
        return set_switches(self._torch, allows_tf32=self._precision == "tf32")

    def _name_counts(self, counts: Mapping[str, Mapping[Any, int]]) -> dict[str, dict[str, int]]:
        torch = self._torch
        names = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
        has_tf32 = self._device.type == "cuda" and torch.cuda.get_device_capability(self._device) >= TF32_CAPABILITY
        wide = "tf32" if self._precision == "tf32" and has_tf32 else "f32"
        return {
            kind: {
                wide if names[dtype] == "f32" and kind in COMPUTE_OPERATORS else names[dtype]: count
                for dtype, count in found.items()
            }
            for kind, found in sorted(counts.items())
        }


class _CudaMemory:
    """A dense block of device memory, as `__cuda_array_interface__` describes one to PyTorch."""

    def __init__(self, address: int, shape: tuple[int, ...], typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": None,
            "typestr": typestr,
            "version": 2,  # no stream in it: the caller orders the work
        }


def wrap_memory(torch: Any, device: Any, address: int, spec: TensorSpec) -> Any:
    """Return the memory at an address as a dense tensor, without a copy; the memory stays the caller's.

    Raises:
        InputError: on a GPU, the address is none of its memory.
    """
    shape, dtype = spec.with_batch(1), getattr(torch, spec.dtype)
    if device.type == "cpu":
        size = math.prod(shape)
        block = (ctypes.c_uint8 * (size * DTYPE_BYTES[spec.dtype])).from_address(address)
        return torch.frombuffer(block, dtype=dtype, count=size).reshape(shape)
    # The interface has no bfloat16, so its bits travel as integers.
    typestr = {"float32": "<f4", "float16": "<f2", "bfloat16": "<i2"}[spec.dtype]
    try:
        held = torch.as_tensor(_CudaMemory(address, shape, typestr), device=device)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{address:#x}, bound to '{spec.name}', is no memory of {device} ({one_line(error)}). Allocate it there."
        ) from error
    if held.data_ptr() != address:  # PyTorch copies what lies on another device
        raise InputError(f"{address:#x}, bound to '{spec.name}', is not on {device}. Allocate it there.")
    return held.view(dtype)


@contextlib.contextmanager
def hold_settings(settings: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set each (object, attribute, value), and put the old values back afterwards."""
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        for place, name, wanted in settings:
            setattr(place, name, wanted)
        yield
    finally:
        for place, name, old in before:
            setattr(place, name, old)


@contextlib.contextmanager
def set_switches(torch: Any, *, allows_tf32: bool) -> Iterator[None]:
    """Set PyTorch's process-wide switches for a stage, and put them back afterwards.

    float32 products round to TF32 only where that is asked for (PyTorch's own default lets convolutions do it). cuDNN
    tries its algorithms at the first call of each shape, which is before a graph is captured, and only those that give
    the same bits each time: a captured run then equals an uncaptured one.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", True), (cudnn, "deterministic", True)]
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9, which refuses a mix with the older names
        kind = "tf32" if allows_tf32 else "ieee"
        settings += [(cudnn.conv, "fp32_precision", kind), (matmul, "fp32_precision", kind)]
    else:
        settings += [(cudnn, "allow_tf32", allows_tf32), (matmul, "allow_tf32", allows_tf32)]
    with _SWITCHES, hold_settings(settings):
        yield


@contextlib.contextmanager
def _translate_errors(torch: Any, doing: str) -> Iterator[None]:
    try:
        yield
    except NdpRtError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"{doing}: memory ran out ({one_line(error)}). Use smaller batches, or free some.") from error
    except RuntimeError as error:
        raise EngineError(f"{doing}: PyTorch failed: {one_line(error)}") from error


def _describe(value: Any) -> TensorSpec:
    """Return the spec of a graph's input or output."""
    from onnx import TensorProto

    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    tensor = value.type.tensor_type
    if tensor.elem_type not in names:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise EngineError(
            f"expected {' or '.join(names.values())} as '{value.name}', got {kind}. Export the bundle again."
        )
    return TensorSpec(
        name=value.name, shape=tuple(int(dim.dim_value) for dim in tensor.shape.dim), dtype=names[tensor.elem_type]
    )
