"""TensorRT on a GPU: a small stage built, run, captured and compared with NumPy, in every precision.

Needs pytest, NumPy, CuPy and TensorRT alone; the stage is written without the onnx package.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.tensorrt import TensorRtBackend
from ndp_rt.engines.backends.tensorrt.engine import TensorRtEngine
from ndp_rt.engines.backends.tensorrt.library import find_version, import_tensorrt
from ndp_rt.engines.backends.tensorrt.options import TensorRtOptions
from ndp_rt.engines.engine import DTYPE_BYTES
from ndp_rt.errors import ClosedError, EngineError, InputError
from tests.engines.typed_stage import BORDERS, SIDE, compute_stage, make_weights, narrow, widen, write_stage
from tests.tolerances import assert_close

BACKEND = TensorRtBackend()
ARITHMETIC = {"fp32": "float32", "tf32": "tf32", "fp16": "float16", "bf16": "bfloat16"}


class Case:
    """The stage in one precision and batch size on the GPU, with device memory for its tensors."""

    def __init__(self, folder: Path, precision: str, batch: int, rng: np.random.Generator, **build: Any) -> None:
        import cupy

        self.cupy = cupy
        self.precision, self.border = precision, BORDERS[precision]
        self.weights = make_weights(rng)
        self.image = rng.random((batch, 3, SIDE, SIDE), np.float32)
        self.path = write_stage(folder / "stage.onnx", precision, self.weights)
        self.lines: list[str] = []
        self.options = EngineOptions(
            precision=precision, batch=batch, build=TensorRtOptions(**build), tell=self.lines.append
        )
        self.artifact = folder / "engine"
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def build(self) -> TensorRtEngine:
        self.artifact.mkdir(exist_ok=True)
        BACKEND.compile(self.path, self.artifact, self.options)
        engine = BACKEND.load(self.artifact, self.options)
        specs = {**engine.inputs, **engine.outputs}
        self.memory = {
            name: self.cupy.zeros(int(np.prod(spec.shape)) * DTYPE_BYTES[spec.dtype], np.uint8)
            for name, spec in specs.items()
        }
        self.shapes = {name: (tuple(spec.shape), spec.dtype) for name, spec in specs.items()}
        self.write("image", narrow(self.image, self.border))
        engine.bind({name: memory.data.ptr for name, memory in self.memory.items()})
        return engine

    def write(self, name: str, values: Any) -> None:
        self.memory[name].set(np.frombuffer(values.tobytes(), np.uint8))

    def read(self, name: str) -> Any:
        shape, dtype = self.shapes[name]
        held = np.uint16 if dtype == "bfloat16" else np.dtype(dtype)
        return widen(np.frombuffer(self.memory[name].get().tobytes(), held).reshape(shape), dtype)

    def run(self, engine: TensorRtEngine) -> None:
        engine.enqueue(self.stream.ptr)
        self.stream.synchronize()

    def check(self) -> None:
        image = widen(narrow(self.image, self.border), self.border)
        for name, expected in compute_stage(image, self.weights, self.border).items():
            assert_close(self.read(name), expected, "typed_stage", ARITHMETIC[self.precision])


def skip_unless_offered(precision: str) -> None:
    if precision == "bf16" and find_version(import_tensorrt()) < (10, 0):
        pytest.skip("needs TensorRT 10.0 or later for bf16")


@pytest.fixture
def case(tmp_path: Path, rng: np.random.Generator) -> Case:
    return Case(tmp_path, "fp16", 2, rng)


@pytest.fixture
def engine(case: Case) -> Iterator[TensorRtEngine]:
    engine = case.build()
    yield engine
    engine.close()


@pytest.mark.tensorrt
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("precision", list(BORDERS))
def test_a_stage_computes_what_numpy_does_in_every_precision(
    tmp_path: Path, rng: np.random.Generator, precision: str, batch: int
) -> None:
    skip_unless_offered(precision)
    case = Case(tmp_path, precision, batch, rng)
    engine = case.build()
    counts = engine.precision_by_layer_type()
    print(counts)
    BACKEND.check_precision(counts, precision)
    case.run(engine)
    case.check()
    assert engine.held_bytes > 0
    engine.close()


@pytest.mark.tensorrt
def test_the_log_is_kept_and_the_timing_cache_serves_the_next_build(tmp_path: Path, rng: np.random.Generator) -> None:
    cache = tmp_path / "timing.cache"
    for _ in range(2):
        Case(tmp_path, "fp16", 1, rng, timing_cache=str(cache)).build().close()
    assert cache.stat().st_size > 0 and "VERBOSE" in (tmp_path / "engine" / "build.log").read_text()
    cache.write_bytes(b"made elsewhere" * 100)
    case = Case(tmp_path, "fp16", 1, rng, timing_cache=str(cache))
    case.build().close()
    assert any("it is not used" in line for line in case.lines) and not cache.read_bytes().startswith(b"made")


@pytest.mark.tensorrt
def test_an_engine_is_captured_and_replayed_with_other_content(case: Case, engine: TensorRtEngine) -> None:
    runtime = case.cupy.cuda.runtime
    case.run(engine)  # whatever it allocates on first use, before the capture
    case.stream.begin_capture(runtime.streamCaptureModeThreadLocal)
    engine.enqueue(case.stream.ptr)
    graph = case.stream.end_capture()
    case.image = case.image[::-1].copy()
    case.write("image", narrow(case.image, case.border))
    for name in engine.outputs:
        case.memory[name].fill(0xFF)
    graph.launch(case.stream)
    case.stream.synchronize()
    case.check()


@pytest.mark.tensorrt
def test_runs_of_the_same_input_are_the_same_to_the_bit(case: Case, engine: TensorRtEngine) -> None:
    case.run(engine)
    first = {name: case.memory[name].get() for name in engine.outputs}
    for _ in range(20):
        case.run(engine)
        for name, content in first.items():
            np.testing.assert_array_equal(case.memory[name].get(), content)


@pytest.mark.tensorrt
def test_what_is_refused_on_a_gpu_is_an_error_and_the_engine_lives(case: Case, engine: TensorRtEngine) -> None:
    with pytest.raises(InputError, match="aligned"):
        engine.bind({name: memory.data.ptr + 4 for name, memory in case.memory.items()})
    plan = case.artifact / "model.plan"
    content = plan.read_bytes()
    plan.write_bytes(content[: len(content) // 2])
    with pytest.raises(EngineError, match="bytes"):
        BACKEND.load(case.artifact, case.options)
    plan.write_bytes(bytes(len(content)))  # as long as it was, and no engine
    with pytest.raises(EngineError, match="TensorRT refuses the engine"):
        BACKEND.load(case.artifact, case.options)
    case.run(engine)
    case.check()
    engine.close()
    with pytest.raises(ClosedError):
        engine.enqueue(case.stream.ptr)


@pytest.mark.tensorrt
@pytest.mark.parametrize("option", ["version_compatible", "hardware_compatible", "strip"])
def test_compatible_and_stripped_engines_compute_the_same(
    tmp_path: Path, rng: np.random.Generator, option: str
) -> None:
    needed = (10, 0) if option == "strip" else (8, 6)
    if find_version(import_tensorrt()) < needed:
        pytest.skip(f"needs TensorRT {needed[0]}.{needed[1]} or later for {option}")
    stages = {"onnx_stages": str(tmp_path)} if option == "strip" else {}
    case = Case(tmp_path, "fp16", 2, rng, **{option: True}, **stages)
    engine = case.build()
    case.run(engine)
    case.check()
    engine.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_stage_is_valid_onnx_and_its_definition_in_numpy_is_right(
    tmp_path: Path, rng: np.random.Generator, precision: str
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install ndp-rt")
    from onnx.reference import ReferenceEvaluator

    weights = make_weights(rng)
    path = write_stage(tmp_path / "stage.onnx", precision, weights)
    onnx.checker.check_model(str(path), full_check=True)
    if precision == "bf16":  # the evaluator has no bfloat16 convolution
        return
    image = rng.random((2, 3, SIDE, SIDE), np.float32).astype(BORDERS[precision])
    found = ReferenceEvaluator(str(path)).run(["reconstruction", "am1"], {"image": image})
    expected = compute_stage(image.astype(np.float64), weights, BORDERS[precision])
    for actual, (name, wanted) in zip(found, expected.items(), strict=True):
        assert actual.shape == wanted.shape, name
        assert_close(actual, wanted, "typed_stage", ARITHMETIC[precision])
