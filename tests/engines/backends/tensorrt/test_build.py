"""Building with a TensorRT that keeps the real interface: what each version is asked for, and what is refused.

The interface is compared with the real one in test_bindings.py.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.devices import machine as device
from ndp_rt.engines.backends.tensorrt import adapter
from ndp_rt.engines.backends.tensorrt.library import find_missing_libraries
from ndp_rt.engines.backends.tensorrt.network import ParsedNetwork
from ndp_rt.errors import EngineError, InputError, StorageError
from tests.engines.backends.tensorrt.conftest import ADDRESSES, BACKEND, VERSIONS, Stage
from tests.fakes import fake_tensorrt, toy_device
from tests.fakes.fake_graphs import BORDERS, SIDE, make_graph

OFFERED = [
    (version, precision)
    for version in VERSIONS
    for precision in ("fp32", "tf32", "fp16", "bf16", "int8")
    if precision != "bf16" or not version.startswith("8.")
]


@pytest.mark.parametrize(("version", "precision"), OFFERED)
def test_every_precision_is_built_and_run_by_every_version_that_has_it(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str, precision: str
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    engine = stage.build(precision=precision)
    border = BORDERS[precision]
    assert {n: (spec.shape, spec.dtype) for n, spec in engine.inputs.items()} == {"image": ((2, 3, SIDE, SIDE), border)}
    assert {name: spec.dtype for name, spec in engine.outputs.items()} == {"reconstruction": border, "am1": "float32"}
    engine.bind({**ADDRESSES, "f1": 0x4000})
    engine.enqueue(7)
    assert lib.knobs.runs == [(7, ADDRESSES)]
    counts = engine.precision_by_layer_type()
    BACKEND.check_precision(counts, precision)
    product = {"fp32": "f32", "tf32": "tf32", "fp16": "f16", "bf16": "bf16", "int8": "f16"}[precision]
    assert counts["deconvolution"] == {product: 1} and counts["matrix product"] == {product: 1}
    first = {"int8": "i8"}.get(precision, product)
    island = "tf32" if precision == "tf32" else "f32"
    assert counts["convolution"] == ({first: 2} if first == island else {first: 1, island: 1})


FLAGS = {
    ("8", "fp32"): set(),
    ("8", "tf32"): {"TF32"},
    ("8", "fp16"): {"FP16", "OBEY_PRECISION_CONSTRAINTS"},
    ("8", "int8"): {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"},
    **{(major, precision): set() for major in ("10", "11") for precision in ("fp32", "fp16", "bf16", "int8")},
    **{(major, "tf32"): {"TF32"} for major in ("10", "11")},
}


@pytest.mark.parametrize(("version", "precision"), OFFERED)
def test_flags_are_those_that_each_version_needs(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str, precision: str
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    stage.compile(stage.options(precision, workspace_bytes=2**20))
    (build,) = lib.knobs.builds
    major = version.partition(".")[0]
    assert build["flags"] == FLAGS[major, precision]
    # EXPLICIT_BATCH is bit 0 of the fake's enumeration, STRONGLY_TYPED bit 1 in 10
    assert build["network_flags"] == {"8": 1, "10": 2, "11": 0}[major]
    assert build["profiles"] == [{"image": ((2, 3, SIDE, SIDE),) * 3}]
    assert build["limits"] == {"WORKSPACE": 2**20} and build["verbosity"] == "DETAILED" and build["level"] is None
    assert set(build["formats"].values()) == {1} and len(build["formats"]) == 3  # 1 << LINEAR


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1"])
def test_before_10_layers_are_held_to_the_types_of_the_file(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    stage.compile(stage.options("fp16"))
    products = {"conv1": "HALF", "up": "HALF", "product": "HALF"}
    assert lib.knobs.builds[0]["held"] == {**products, "squares": "FLOAT", "softmax": "FLOAT"}


def test_before_10_quantized_layers_are_left_to_their_quantization(old_trt: Any, stage: Stage) -> None:
    stage.compile(stage.options("int8"))
    held = {"up": "HALF", "product": "HALF", "squares": "FLOAT", "softmax": "FLOAT"}
    assert old_trt.knobs.builds[0]["held"] == held
    document = json.loads((stage.artifact / "plan.json").read_text())
    assert document["products"] == {"f16": 2, "f32": 1, "i8": 1}


@pytest.mark.parametrize(("version", "precision"), OFFERED)
def test_the_types_of_all_tensors_are_those_of_the_file(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str, precision: str
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    graph = make_graph(precision, "IDENTITY" if version.startswith("8.5") else "CAST")
    parsed = ParsedNetwork(lib, adapter.make_builder(lib), stage.write(graph))
    expected = {one["output"]: one["dtype"] for one in graph["layers"]} | {"image": graph["inputs"][0]["dtype"]}
    assert adapter.read_types(lib, parsed.network) == expected


@pytest.mark.parametrize(
    ("version", "missing", "sources"),
    [
        ("8.5.3.1", {"CUBLAS", "CUBLAS_LT", "CUDNN"}, 0b11000),
        ("8.6.1", {"CUDNN"}, 0b11011),
        ("8.6.1", set(), 0b11111),
        ("10.0.1", {"CUBLAS", "CUBLAS_LT", "CUDNN"}, 0b11111),
    ],
)
def test_before_10_kernels_of_libraries_that_are_missing_are_left_out(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str, missing: set[str], sources: int
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    monkeypatch.setattr("ndp_rt.engines.backends.tensorrt.adapter.find_missing_libraries", lambda lib: missing)
    stage.compile(stage.options())
    assert lib.knobs.builds[0]["sources"] == sources


def test_libraries_are_found_beside_tensorrts_package(
    trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: fail(name))

    def fail(name: str) -> None:
        raise OSError(name)

    trt.__file__ = str(tmp_path / "tensorrt" / "__init__.py")
    assert find_missing_libraries(trt) == {"CUBLAS", "CUBLAS_LT", "CUDNN"}
    (tmp_path / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    for name in ("libcublas.so.11", "libcublasLt.so.11"):
        (tmp_path / "nvidia" / "cublas" / "lib" / name).touch()
    assert find_missing_libraries(trt) == {"CUDNN"}
    monkeypatch.setattr("ctypes.CDLL", lambda name: None if name == "libcudnn.so.8" else fail(name))
    assert find_missing_libraries(trt) == set()


def test_from_10_on_no_layer_is_held(trt: Any, stage: Stage) -> None:
    stage.compile(stage.options("fp16"))
    assert trt.knobs.builds[0]["held"] == {}


def test_beside_the_plan_lie_its_log_and_what_it_is(trt: Any, stage: Stage) -> None:
    notes = stage.compile(stage.options("fp16", workspace_bytes=5))
    assert sorted(path.name for path in stage.artifact.iterdir()) == ["build.log", "model.plan", "plan.json"]
    log = (stage.artifact / "build.log").read_text()
    assert "VERBOSE        Applying generic optimizations" in log and "INFO" in log
    document = json.loads((stage.artifact / "plan.json").read_text())
    assert document["machine"] == {
        "gpu_name": "Toy H200",
        "compute_capability": "9.0",
        "driver_version": "550.54",
        "cuda_version": "12.4",
        "tensorrt_version": "10.13.3.9",
        "tensorrt_package": "tensorrt-cu12",
    }
    assert (document["precision"], document["batch"], document["traits"]) == ("fp16", 2, ["workspace=5"])
    assert document["products"] == {"f16": 3, "f32": 1} and len(document["onnx_sha256"]) == 64
    assert document["plan_bytes"] == (stage.artifact / "model.plan").stat().st_size == notes["plan_bytes"]
    assert notes["log"] == "build.log"


def test_an_engine_counts_its_weights_and_scratch_memory(any_version: Any, stage: Stage) -> None:
    engine = stage.build()
    assert engine.held_bytes == (stage.artifact / "model.plan").stat().st_size + 1000


# Precision.


def test_a_graph_of_another_precision_is_refused_before_it_is_built(trt: Any, stage: Stage) -> None:
    with pytest.raises(EngineError, match=r"asked for fp16, the graph \S+tail.onnx multiplies in 4 x f32\."):
        stage.compile(stage.options("fp16"), make_graph("fp32"))
    with pytest.raises(EngineError, match=r"asked for fp32, the graph \S+ multiplies in 3 x f16, 1 x f32"):
        BACKEND.compile(stage.write(make_graph("fp16")), stage.artifact, stage.options("fp32"))
    assert not trt.knobs.builds


@pytest.mark.parametrize(
    ("precision", "retypes"),
    [("fp16", {"HALF": "FLOAT"}), ("bf16", {"BF16": "FLOAT"}), ("int8", {"INT8": "HALF"}), ("fp16", {"HALF": "BF16"})],
)
def test_an_engine_that_computes_otherwise_than_its_graph_is_refused(
    trt: Any, stage: Stage, precision: str, retypes: dict[str, str]
) -> None:
    trt.knobs.retypes = retypes
    with pytest.raises(
        EngineError, match=rf"asked for {precision}, TensorRT [0-9.]+ changed the types: layers that multiply were"
    ):
        stage.build(precision=precision)


def test_an_engine_that_says_nothing_of_its_types_is_refused_up_to_version_9(
    old_trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_trt.knobs.is_silent = True
    engine = stage.build()
    assert engine.precision_by_layer_type() == {}
    with pytest.raises(EngineError, match="asked for fp16, TensorRT's engine multiplies in none"):
        BACKEND.check_precision({}, "fp16")
    monkeypatch.setattr(old_trt, "__version__", "10.0.1")
    BACKEND.check_precision({}, "fp16")  # the network's types hold


def test_an_inspector_that_fails_with_a_context_is_asked_without(trt: Any, stage: Stage) -> None:
    trt.knobs.fails_with_context = True
    assert stage.build().precision_by_layer_type()["convolution"] == {"f16": 1, "f32": 1}


def test_unknown_precisions_are_refused(trt: Any, stage: Stage) -> None:
    with pytest.raises(
        InputError, match="expected precision fp32 or tf32 or fp16 or bf16 or int8 for backend tensorrt, got 'fp8'"
    ):
        BACKEND.compile(stage.folder / "x", stage.folder, stage.options("fp8"))


# Options that not every version has.


def test_compatible_engines_are_asked_for_and_loaded(trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    options = stage.options(version_compatible=True, hardware_compatible=True)
    stage.compile(options)
    build = trt.knobs.builds[0]
    assert build["flags"] == {"VERSION_COMPATIBLE"} and build["level"] == "AMPERE_PLUS"
    fake_tensorrt.install(monkeypatch, "10.16.0")
    monkeypatch.setattr(device, "find_gpus", lambda: (replace(toy_device.GPU, name="Toy A100"),))
    engine = stage.load(options)
    engine.bind(ADDRESSES)
    engine.enqueue(1)


@pytest.mark.parametrize(
    ("version", "settings", "words"),
    [
        ("8.6.1", {"precision": "bf16"}, r"--precision bf16 needs TensorRT 10\.0 or later; 8\.6\.1"),
        ("8.5.3.1", {"version_compatible": True}, r"--version-compatible needs TensorRT 8\.6 or later; 8\.5\.3\.1"),
        ("8.5.3.1", {"hardware_compatible": True}, r"--hardware-compatible needs TensorRT 8\.6 or later; 8\.5\.3\.1"),
        ("8.6.1", {"strip": True}, r"--strip needs TensorRT 10\.0 or later; 8\.6\.1 is installed\. Leave it out, or"),
    ],
)
def test_what_the_installed_version_lacks_is_said_with_the_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, version: str, settings: dict[str, Any], words: str
) -> None:
    lib = fake_tensorrt.install(monkeypatch, version)
    with pytest.raises(InputError, match=words):
        stage.compile(stage.options(**settings))
    assert not lib.knobs.builds


def test_an_engine_without_weights_takes_them_from_its_stage(trt: Any, stage: Stage) -> None:
    engine = stage.build(strip=True)
    assert trt.knobs.builds[0]["flags"] == {"STRIP_PLAN", "REFIT_IDENTICAL"}
    engine.bind(ADDRESSES)
    engine.enqueue(1)  # the fake refuses to run without weights
    refusals = {"refit_from_file": "do not fit: node 0 'node_0': no such", "refit_cuda_engine": "put back: some"}
    for refused, words in refusals.items():
        trt.knobs.refuses = {refused}
        with pytest.raises(EngineError, match=words):
            stage.load(stage.options(strip=True))
    trt.knobs.refuses = set()
    stage.write(make_graph("fp32"))
    with pytest.raises(EngineError, match=r"weights lie in \S+tail.onnx, which is missing or was changed"):
        stage.load(stage.options(strip=True))


# The timing cache.


def test_the_timing_cache_is_written_and_used_by_the_next_build(any_version: Any, stage: Stage) -> None:
    file = stage.folder / "caches" / "t.cache"
    for _ in range(2):
        stage.compile(stage.options(timing_cache=str(file)))
        (stage.artifact).rename(stage.folder / f"engine-{len(any_version.knobs.builds)}")
    assert any_version.knobs.cache_hits == 10
    assert [path.name for path in file.parent.iterdir()] == ["t.cache"] and not stage.lines


@pytest.mark.parametrize(
    "content", [b"FAKE CACHE " + b'{"version": "8.6.1", "gpu": "Toy H200", "kernels": []}', b"junk"]
)
def test_a_timing_cache_from_elsewhere_is_a_miss_and_no_error(trt: Any, stage: Stage, content: bytes) -> None:
    file = stage.folder / "t.cache"
    file.write_bytes(content)
    stage.compile(stage.options(timing_cache=str(file)))
    assert "t.cache was made on another GPU or by another TensorRT; it is not used" in stage.lines[0]
    assert trt.knobs.cache_hits == 0 and json.loads(file.read_bytes()[11:])["version"] == "10.13.3.9"


def test_a_timing_cache_that_cannot_be_written_is_said_before_the_build(trt: Any, stage: Stage) -> None:
    (stage.folder / "file").write_text("x")
    with pytest.raises(StorageError, match=r"file/t.cache: cannot be written .*--timing-cache FILE"):
        stage.compile(stage.options(timing_cache=str(stage.folder / "file" / "t.cache")))
    assert not trt.knobs.builds


def test_a_disk_that_is_full_when_the_timing_cache_is_written_leaves_the_old_one(
    trt: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stage.folder / "t.cache"
    file.write_bytes(b"junk")

    options, write = stage.options(timing_cache=str(file)), Path.write_bytes

    def fill(path: Path, content: bytes) -> None:
        if path.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(StorageError, match=r"No space left"):
        stage.compile(options)
    assert file.read_bytes() == b"junk" and not list(stage.folder.glob("*.tmp"))


# Parsing.


def test_all_of_the_parsers_complaints_are_in_one_message(any_version: Any, stage: Stage) -> None:
    graph = {**make_graph("fp16"), "errors": ["no importer for Foo", "weights\n are missing"]}
    with pytest.raises(EngineError, match=r"cannot read \S+: node 0.*no importer for Foo; node 1.*weights are"):
        stage.compile(stage.options(), graph)


def test_a_graph_of_another_batch_or_with_other_open_axes_is_refused(trt: Any, stage: Stage) -> None:
    graph = make_graph("fp16")
    for shape in ([1, 3, SIDE, SIDE], [-1, 3, -1, SIDE]):
        graph["inputs"][0]["shape"] = shape
        with pytest.raises(EngineError, match=r"expected input 'image' with a first axis that may be .*, got shape \["):
            BACKEND.compile(stage.write(graph), stage.folder, stage.options(batch=2))
    graph["inputs"][0]["shape"] = [2, 3, SIDE, SIDE]
    BACKEND.compile(stage.write(graph), stage.folder, stage.options(batch=2))


def test_a_border_of_another_type_is_refused(trt: Any, stage: Stage) -> None:
    graph = make_graph("fp16")
    graph["layers"][-1]["dtype"] = "INT8"
    with pytest.raises(EngineError, match="expected FLOAT or HALF or BF16 as the type of 'am1', .*, got INT8"):
        stage.compile(stage.options(), graph)


def test_what_is_versioned_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in VERSIONS:
        lib = fake_tensorrt.install(monkeypatch, version)
        for name in adapter.VERSIONED:
            owner, _, member = name.partition(".")
            is_there = hasattr(lib, owner) and (not member or hasattr(getattr(lib, owner), member))
            assert adapter.has(lib, name) == is_there, f"{name} in {version}"
