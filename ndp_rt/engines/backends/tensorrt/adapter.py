"""TensorRT 8.5 to 11 behind one face: what some version lacks, and what one means otherwise, is in this module alone.

The rest of the package uses what they all share: tensors by name, `execute_async_v3`, timing caches and profiles. Every
other name is in `VERSIONED`. tests/engines/backends/tensorrt/test_bindings.py reads from the source which names are
used, and compares them and the table with the real bindings.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backends.tensorrt.library import (
    OLDEST,
    REMEDY,
    describe,
    dotted,
    find_missing_libraries,
    find_version,
)
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log
from ndp_rt.engines.backends.tensorrt.options import TensorRtOptions
from ndp_rt.engines.backends.tensorrt.progress import BuildProgress
from ndp_rt.errors import DeviceError, EngineError, InputError

if TYPE_CHECKING:
    import tensorrt as trt

TYPED, ALWAYS_TYPED = (10, 0), (11, 0)  # the first versions whose networks are typed if asked, and whether asked or not


@dataclass(frozen=True, kw_only=True)
class Span:
    """The versions that have a name: from `since` on, up to but without `gone`."""

    since: tuple[int, int] = OLDEST
    gone: tuple[int, int] | None = None


# A class speaks for its members.
VERSIONED: dict[str, Span] = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": Span(gone=ALWAYS_TYPED),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": Span(since=TYPED),
    "BuilderFlag.FP16": Span(gone=ALWAYS_TYPED),
    "BuilderFlag.INT8": Span(gone=ALWAYS_TYPED),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": Span(gone=ALWAYS_TYPED),
    "ILayer.precision": Span(gone=ALWAYS_TYPED),
    "ILayer.set_output_type": Span(gone=ALWAYS_TYPED),
    "ILayer.output_type_is_set": Span(gone=ALWAYS_TYPED),
    "TacticSource.CUBLAS": Span(gone=ALWAYS_TYPED),
    "TacticSource.CUBLAS_LT": Span(gone=ALWAYS_TYPED),
    "TacticSource.CUDNN": Span(gone=ALWAYS_TYPED),
    "DataType.BF16": Span(since=TYPED),
    "BuilderFlag.VERSION_COMPATIBLE": Span(since=(8, 6)),
    "Runtime.engine_host_code_allowed": Span(since=(8, 6)),
    "HardwareCompatibilityLevel": Span(since=(8, 6)),
    "IBuilderConfig.hardware_compatibility_level": Span(since=(8, 6)),
    "BuilderFlag.STRIP_PLAN": Span(since=TYPED),
    "BuilderFlag.REFIT_IDENTICAL": Span(since=TYPED),
    "OnnxParserRefitter": Span(since=TYPED),
    "IProgressMonitor": Span(since=TYPED),
    "IBuilderConfig.progress_monitor": Span(since=TYPED),
    "ParserError.node_name": Span(since=TYPED),
    "ICudaEngine.device_memory_size": Span(gone=ALWAYS_TYPED),
    "ICudaEngine.device_memory_size_v2": Span(since=(10, 1)),
}


def has(lib: Any, name: str) -> bool:
    """Tell whether the installed TensorRT has a name of VERSIONED."""
    span, version = VERSIONED[name], find_version(lib)
    return span.since <= version and (span.gone is None or version < span.gone)


def need(lib: Any, name: str, asked_for: str) -> None:
    """Check that the installed TensorRT has a name of VERSIONED.

    Raises:
        InputError: it has not; the message names what was asked for, and the version that has it.
    """
    if not has(lib, name):
        raise InputError(
            f"{asked_for} needs TensorRT {dotted(VERSIONED[name].since)} or later; {lib.__version__} is installed. "
            f"Leave it out, or install a later one: {REMEDY}."
        )


def check_offered(lib: Any, precision: str, build: TensorRtOptions) -> None:
    """Check that the installed TensorRT has what a build asks for.

    Raises:
        InputError: it has not; the message names the version that has it.
    """
    asked = {
        "DataType.BF16": (precision == "bf16", "--precision bf16"),
        "BuilderFlag.VERSION_COMPATIBLE": (build.version_compatible, "--version-compatible"),
        "HardwareCompatibilityLevel": (build.hardware_compatible, "--hardware-compatible"),
        "BuilderFlag.STRIP_PLAN": (build.strip, "--strip"),
    }
    for name, (is_asked, words) in asked.items():
        if is_asked:
            need(lib, name, words)


def make_builder(lib: Any) -> "trt.Builder":
    """Return a builder on the thread's current GPU.

    Raises:
        EngineError: this TensorRT can run engines, and not build them.
        DeviceError: it finds no GPU, or a driver that is too old for it.
    """
    if not hasattr(lib, "Builder"):
        raise EngineError(
            f"the TensorRT {lib.__version__} that is installed runs engines and builds none. Build where all of it is "
            f"installed: {REMEDY}."
        )
    with _explain_null(lib, "builder"):
        return lib.Builder(get_log(lib))


@contextlib.contextmanager
def _explain_null(lib: Any, what: str) -> Iterator[None]:
    """Say what it means that TensorRT makes no object: the bindings raise TypeError and leave the reason in the log."""
    before = get_log(lib).error_count
    try:
        yield
    except TypeError as error:
        raise DeviceError(
            f"{describe(lib)} makes no {what} ({describe_errors(lib, before)}): it finds no "
            "GPU, or the driver is too old for its CUDA. Install a newer NVIDIA driver (in a container: run it with "
            "--gpus all), or a TensorRT for an older CUDA."
        ) from error


def make_network(lib: Any, builder: "trt.Builder") -> "trt.INetworkDefinition":
    """Return an empty network with the batch as first axis, typed as the ONNX file says where TensorRT has that."""
    flags, version = 0, find_version(lib)
    if version < TYPED:
        flags = 1 << int(lib.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    elif version < ALWAYS_TYPED:
        flags = 1 << int(lib.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition = builder.create_network(flags)
    return network


def describe_parser_error(lib: Any, error: "trt.ParserError") -> str:
    """Return one of the parser's complaints as one line."""
    name = f" '{error.node_name()}'" if has(lib, "ParserError.node_name") and error.node_name() else ""
    text: str = error.desc()
    return f"node {error.node()}{name}: {' '.join(text.split())}"


def set_precision(lib: Any, config: "trt.IBuilderConfig", network: "trt.INetworkDefinition", precision: str) -> None:
    """Let the builder use the types that the network has, and no others.

    From 10 on the network's types bind it. Before, they are allowed by flags and the builder may choose float32 or
    float16 for each layer, so layers that multiply and layers in float32 are held to their type one by one.

    """
    if precision == "tf32":
        config.set_flag(lib.BuilderFlag.TF32)
    else:
        config.clear_flag(lib.BuilderFlag.TF32)  # it is set from the start
    if find_version(lib) >= TYPED or precision not in ("fp16", "int8"):
        return
    config.set_flag(lib.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(lib.BuilderFlag.INT8)
    config.set_flag(lib.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    _hold_types(lib, network)


def leave_out_missing_libraries(lib: Any, config: "trt.IBuilderConfig") -> None:
    """Let a build before 10 do without cuBLAS and cuDNN where they are not installed; later ones do so by themselves.

    Raises:
        EngineError: TensorRT refuses.
    """
    if find_version(lib) >= TYPED:
        return
    sources: int = config.get_tactic_sources()
    bits = {
        "CUBLAS": 1 << int(lib.TacticSource.CUBLAS),
        "CUBLAS_LT": 1 << int(lib.TacticSource.CUBLAS_LT),
        "CUDNN": 1 << int(lib.TacticSource.CUDNN),
    }
    for name in find_missing_libraries(lib):
        sources &= ~bits[name]
    before = get_log(lib).error_count
    if not config.set_tactic_sources(sources):
        raise EngineError(f"TensorRT refuses to build without cuBLAS and cuDNN: {describe_errors(lib, before)}.")


# What has a type of its own that no constraint may touch, or only moves data.
FREE_LAYERS = frozenset(
    {"CONSTANT", "SHAPE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "SHUFFLE", "SLICE", "CONCATENATION", "GATHER"}
)
TYPING_LAYERS = frozenset({"CONSTANT", "CAST", "QUANTIZE", "DEQUANTIZE"})
PRODUCT_LAYERS = {  # as layers.py calls them
    "CONVOLUTION": "convolution",
    "DECONVOLUTION": "deconvolution",
    **dict.fromkeys(("MATRIX_MULTIPLY", "FULLY_CONNECTED", "EINSUM"), "matrix product"),
}


def _hold_types(lib: Any, network: "trt.INetworkDefinition") -> None:
    types, quantized = read_types(lib, network), find_quantized(network)
    for index in range(network.num_layers):
        layer: trt.ILayer = network.get_layer(index)
        kind: trt.LayerType = layer.type
        output: trt.ITensor = layer.get_output(0)
        first: trt.ITensor = layer.get_input(0)
        if kind.name in FREE_LAYERS or first is None or output is None or first.name in quantized:
            continue  # a layer behind DEQUANTIZE computes in int8, which its own type does not say
        wanted = types[output.name]
        if wanted == "FLOAT":
            layer.precision = lib.DataType.FLOAT
            layer.set_output_type(0, lib.DataType.FLOAT)
        elif wanted == "HALF" and kind.name in PRODUCT_LAYERS:
            layer.precision = lib.DataType.HALF
            layer.set_output_type(0, lib.DataType.HALF)


def read_types(lib: Any, network: "trt.INetworkDefinition") -> dict[str, str]:
    """Return the type of every tensor of a network by name, as the ONNX file gives them: FLOAT, HALF, INT8 and so on.

    Before 10 a network does not pass types on by itself: a tensor is FLOAT until it is built. So they are followed from
    the inputs and constants, whose types are right, through layers that the parser gave no type.
    """
    passes_on = find_version(lib) >= TYPED
    types: dict[str, str] = {}
    for index in range(network.num_inputs):
        given: trt.ITensor = network.get_input(index)
        types[given.name] = _name_type(given)
    for index in range(network.num_layers):
        layer: trt.ILayer = network.get_layer(index)
        kind: trt.LayerType = layer.type
        first: trt.ITensor = layer.get_input(0)
        for number in range(layer.num_outputs):
            output: trt.ITensor = layer.get_output(number)
            own = _name_type(output)
            is_given = passes_on or kind.name in TYPING_LAYERS or layer.output_type_is_set(number)
            follows = not is_given and own in ("FLOAT", "HALF") and first is not None
            types[output.name] = types.get(first.name, own) if follows else own
    return types


def _name_type(tensor: "trt.ITensor") -> str:
    dtype: trt.DataType = tensor.dtype
    name: str = dtype.name
    return name


def find_quantized(network: "trt.INetworkDefinition") -> set[str]:
    """Return the tensors that a DEQUANTIZE layer gives: what reads them computes in int8."""
    names = set()
    for index in range(network.num_layers):
        layer: trt.ILayer = network.get_layer(index)
        kind: trt.LayerType = layer.type
        output: trt.ITensor = layer.get_output(0)
        if kind.name == "DEQUANTIZE":
            names.add(output.name)
    return names


def set_compatibility(lib: Any, config: "trt.IBuilderConfig", build: TensorRtOptions) -> None:
    """Ask for an engine that other versions or GPUs can load, or without weights."""
    if build.version_compatible:
        config.set_flag(lib.BuilderFlag.VERSION_COMPATIBLE)
    if build.hardware_compatible:
        config.hardware_compatibility_level = lib.HardwareCompatibilityLevel.AMPERE_PLUS
    if build.strip:
        config.set_flag(lib.BuilderFlag.STRIP_PLAN)
        config.set_flag(lib.BuilderFlag.REFIT_IDENTICAL)  # the same weights come back, so layers may be merged by value


def watch(lib: Any, config: "trt.IBuilderConfig", progress: BuildProgress) -> Any:
    """Report a build's steps; return what has to live until it is done. Before 10 there are only the log's lines."""
    if not has(lib, "IProgressMonitor"):
        return None

    class Monitor(lib.IProgressMonitor):  # type: ignore[misc]
        """Hands a build's phases on; called from several threads."""

        def __init__(self) -> None:
            lib.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.advance(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def make_runtime(lib: Any, *, allow_host_code: bool) -> "trt.Runtime":
    """Return a runtime on the thread's current GPU.

    Args:
        allow_host_code: version-compatible engines bring code for the host with them, which is then run.

    Raises:
        DeviceError: TensorRT finds no GPU, or a driver that is too old for it.
        InputError: this TensorRT loads no such engines.
    """
    with _explain_null(lib, "runtime"):
        runtime: trt.Runtime = lib.Runtime(get_log(lib))
    if allow_host_code:
        need(lib, "Runtime.engine_host_code_allowed", "a version-compatible engine")
        runtime.engine_host_code_allowed = True
    return runtime


def refit(lib: Any, engine: "trt.ICudaEngine", onnx_path: Path) -> None:
    """Put the weights of an ONNX file into an engine that was built without them.

    Raises:
        InputError: this TensorRT has no such engines.
        EngineError: the file is not the one that it was built from.
    """
    need(lib, "OnnxParserRefitter", "an engine without weights")
    refitter: trt.Refitter = lib.Refitter(engine, get_log(lib))
    parser: trt.OnnxParserRefitter = lib.OnnxParserRefitter(refitter, get_log(lib))
    before = get_log(lib).error_count
    if not parser.refit_from_file(str(onnx_path)):
        complaints = [describe_parser_error(lib, parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineError(
            f"the weights of {onnx_path} do not fit: {'; '.join(complaints) or describe_errors(lib, before)}."
        )
    if not refitter.refit_cuda_engine():
        raise EngineError(f"the weights of {onnx_path} cannot be put back: {describe_errors(lib, before)}.")


def find_scratch_bytes(lib: Any, engine: "trt.ICudaEngine") -> int:
    """Return the device memory that a context of an engine holds beside its weights."""
    if has(lib, "ICudaEngine.device_memory_size_v2"):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)
