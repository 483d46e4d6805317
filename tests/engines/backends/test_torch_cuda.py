"""The torch-cuda backend: on the CPU here, where its classes are the same; on a GPU with the marker `gpu`."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.torch.backend import MODEL_FILE, TorchCudaBackend
from ndp_rt.engines.backends.torch.engine import TorchCudaEngine, set_switches
from ndp_rt.engines.registry import find_device_backend, list_backends
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError
from ndp_rt.graphs.stages import make_stage
from ndp_rt.graphs.typed import BORDER_DTYPES, make_typed
from tests.bricks import BRICKS
from tests.engines.staged_plan import StagedPlan, load_engine
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch

DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def encoder(bundle: Bundle, tmp_path: Path) -> TorchCudaEngine:
    return load_engine(make_stage(bundle, "encoder"), tmp_path, EngineOptions(batch=2))


def bind(engine: TorchCudaEngine, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Bind an engine to new tensors and return them; the engine does not keep them alive."""
    specs = (*engine.inputs.values(), *engine.outputs.values())
    tensors = {s.name: torch.zeros(s.with_batch(1), dtype=getattr(torch, s.dtype), device=device) for s in specs}
    engine.bind({name: tensor.data_ptr() for name, tensor in tensors.items()})
    return tensors


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_tiny_bundles_plan_gives_its_golden_maps(bundle: Bundle, precision: str, plan: str, device: str) -> None:
    golden = bundle.golden()
    with StagedPlan(bundle, precision, batch=2, plan=plan, device=device) as staged:
        found = staged.run(golden.image)
        assert_close(found["map"], golden.map, "map", DTYPES[precision])
        found = staged.run(golden.image[::-1])  # nothing of the first run is left
        assert_close(found["map"], golden.map[::-1], "map", DTYPES[precision])


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("precision", "plan"), [("fp32", "staged"), ("fp16", "staged"), ("bf16", "staged"), ("fp16", "fused")]
)
def test_the_bricks_plan_gives_its_golden_maps_and_scores(precision: str, plan: str, device: str) -> None:
    bundle = open_bundle(BRICKS, verify=False)
    golden = bundle.golden()
    with StagedPlan(bundle, precision, plan=plan, device=device) as staged:
        for index in range(len(golden.image)):
            found = staged.run(golden.image[index : index + 1])
            for name, expected in (("map", golden.map[index : index + 1]), ("score", golden.score[index : index + 1])):
                difference = float(np.abs(found[name] - expected).max())
                allowed = find_tolerance(f"engine.{name}", precision).absolute
                print(f"{plan} {precision} {name}: {difference:.2e} of {allowed:.0e}")
                assert difference <= allowed


@pytest.mark.gpu
def test_tf32_stays_within_its_tolerance_on_a_gpu() -> None:
    bundle = open_bundle(BRICKS, verify=False)
    golden = bundle.golden()
    with StagedPlan(bundle, "tf32", batch=2, device="cuda") as staged:
        found = staged.run(golden.image[:2])
        difference = float(np.abs(found["map"] - golden.map[:2]).max())
        assert 1e-5 < difference <= find_tolerance("engine.map", "tf32").absolute  # below 1e-5 it was fp32


def test_tensors_have_the_borders_types_and_the_engines_batch(bundle: Bundle, tmp_path: Path) -> None:
    for precision in TorchCudaBackend.precisions:
        dtype = BORDER_DTYPES[precision]
        (tmp_path / precision).mkdir()
        model = make_typed(make_stage(bundle, "fused_levels"), precision)
        options = EngineOptions(precision=precision, batch=3)
        backend = TorchCudaBackend("cpu")
        (tmp_path / "stage.onnx").write_bytes(model.SerializeToString())
        backend.compile(tmp_path / "stage.onnx", tmp_path / precision, options)
        engine = backend.load(tmp_path / precision, options)
        assert (engine.inputs["image"].shape, engine.inputs["image"].dtype) == ((3, 3, 64, 64), dtype)
        assert (engine.outputs["am2"].shape, engine.outputs["am2"].dtype) == ((3, 1, 32, 32), "float32")
        assert engine.outputs["reconstruction"].dtype == dtype


def test_results_are_written_into_the_bound_memory_and_nowhere_else(encoder: TorchCudaEngine, bundle: Bundle) -> None:
    first, second = bind(encoder), bind(encoder)
    second["image"].copy_(torch.from_numpy(bundle.golden().image))
    guard = {name: tensor.clone() for name, tensor in first.items()}
    encoder.enqueue(0)
    assert all((second[name] != 0).any() for name in encoder.outputs)
    assert all(torch.equal(first[name], guard[name]) for name in first)
    assert torch.equal(second["image"], torch.from_numpy(bundle.golden().image))


def test_names_that_the_engine_does_not_know_are_left_alone(encoder: TorchCudaEngine) -> None:
    tensors = bind(encoder)
    encoder.bind({name: tensor.data_ptr() for name, tensor in tensors.items()} | {"am1": 3})


def test_addresses_that_cannot_be_are_refused(encoder: TorchCudaEngine) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in bind(encoder).items()}
    for wrong, words in (
        ({"f3": 0}, "address of 'f3', .*, got 0x0"),
        ({"image": pointers["image"] + 2}, "aligned to 4 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            encoder.bind(pointers | wrong)
    del pointers["f5"]
    with pytest.raises(InputError, match="expected the address of 'f5', float32 .*, got none"):
        encoder.bind(pointers)


def test_an_engine_without_memory_does_not_run(encoder: TorchCudaEngine) -> None:
    with pytest.raises(EngineError, match=r"Call bind\(\) first"):
        encoder.enqueue(0)


def test_a_closed_engine_says_so(encoder: TorchCudaEngine) -> None:
    bind(encoder)
    assert encoder.held_bytes > 0
    encoder.close()
    encoder.close()
    assert encoder.held_bytes == 0
    for call in (lambda: encoder.enqueue(0), lambda: encoder.bind({}), encoder.precision_by_layer_type):
        with pytest.raises(ClosedError, match="the engine is closed"):
            call()


def test_held_memory_is_weights_and_the_widest_moment(bundle: Bundle, tmp_path: Path) -> None:
    model = make_stage(bundle, "encoder")
    engine = load_engine(model, tmp_path, EngineOptions(batch=2))
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    # The first convolution's result, [2, 4, 64, 64], stands beside its ReLU's, and nothing larger ever does.
    assert engine.held_bytes == weights + 2 * (2 * 4 * 64 * 64 * 4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_layers_report_the_types_of_their_results(bundle: Bundle, tmp_path: Path, precision: str) -> None:
    name = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
    options = EngineOptions(precision=precision)
    engine = load_engine(make_typed(make_stage(bundle, "tail"), precision), tmp_path, options)
    counts = engine.precision_by_layer_type()
    assert counts["Conv"] == {name: 7} and counts["Relu"] == {name: 3}
    assert counts["Sigmoid"] == ({"f32": 4} if precision == "fp32" else {"f32": 3, name: 1})


def test_asking_for_one_precision_and_getting_another_is_an_error() -> None:
    backend = TorchCudaBackend("cpu")
    for counts, precision in (
        ({"Conv": {"f32": 9}}, "fp16"),
        ({"Conv": {"f32": 9}}, "tf32"),
        ({"Conv": {"f16": 9, "f32": 1}}, "fp32"),
        ({"Conv": {"f16": 9}, "MatMul": {"f32": 5}}, "fp16"),
        ({"Relu": {"f16": 9}}, "fp16"),
    ):
        with pytest.raises(EngineError, match=f"asked for {precision}, PyTorch computes"):
            backend.check_precision(counts, precision)
    backend.check_precision({"Conv": {"f16": 18, "f32": 6}, "ConvTranspose": {"f16": 6}}, "fp16")
    backend.check_precision({"Conv": {"tf32": 9}}, "tf32")


def test_the_cpu_does_not_pretend_to_have_tf32(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"asked for tf32, PyTorch computes .* in 5 x f32\. TF32 needs an Ampere GPU"):
        load_engine(make_stage(bundle, "encoder"), tmp_path, EngineOptions(precision="tf32"))


def test_other_precisions_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    backend = TorchCudaBackend("cpu")
    for call in (
        lambda options: backend.compile(bundle.stage_path("encoder"), tmp_path, options),
        lambda options: backend.load(tmp_path, options),
    ):
        with pytest.raises(
            InputError, match="expected precision fp32 or tf32 or fp16 or bf16 for backend torch-cuda, got 'int8'"
        ):
            call(EngineOptions(precision="int8"))


def test_the_artifact_needs_no_bundle_and_has_one_batch_size(own_bundle: Bundle, tmp_path: Path) -> None:
    """The bundle's own graph, whose weights lie outside, compiles too; they are inside afterwards."""
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    backend, options = TorchCudaBackend("cpu"), EngineOptions(batch=2)
    notes = backend.compile(own_bundle.stage_path("encoder"), artifact, options)
    for path in own_bundle.path.iterdir():
        path.unlink()
    assert [path.name for path in artifact.iterdir()] == [MODEL_FILE]
    assert notes["artifact_bytes"] == (artifact / MODEL_FILE).stat().st_size
    assert notes["held_bytes"] > 0 and torch.__version__ in notes["torch"]
    dims = onnx.load(str(artifact / MODEL_FILE)).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [2, 3, 64, 64]
    tensors = bind(engine := backend.load(artifact, options))
    engine.enqueue(0)
    assert tensors["f5"].shape == (2, 4, 4, 4)


def test_a_damaged_artifact_is_one_error(bundle: Bundle, tmp_path: Path) -> None:
    backend = TorchCudaBackend("cpu")
    backend.compile(bundle.stage_path("encoder"), tmp_path, EngineOptions())
    content = (tmp_path / MODEL_FILE).read_bytes()
    for damaged in (content[: len(content) // 2], b"\xff\xff"):
        (tmp_path / MODEL_FILE).write_bytes(damaged)
        with pytest.raises(EngineError, match=r"model\.onnx: is no stage of an engine"):
            backend.load(tmp_path, EngineOptions())
    (tmp_path / MODEL_FILE).unlink()
    with pytest.raises(EngineError, match=r"model\.onnx: is no stage of an engine"):
        backend.load(tmp_path, EngineOptions())


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_the_error_says_what_is_missing(bundle: Bundle, tmp_path: Path) -> None:
    backend = find_device_backend("torch-cuda")
    for call in (
        lambda: backend.compile(bundle.stage_path("encoder"), tmp_path, EngineOptions()),
        lambda: backend.load(tmp_path, EngineOptions()),
    ):
        with pytest.raises(DeviceError, match="--backend torch-cuda: .*(has no CUDA|finds no GPU)"):
            call()
    status = backend.find()
    assert status.version is not None and status.devices == ()


def test_a_gpu_backend_is_found_by_name() -> None:
    assert find_device_backend("torch-cuda") is list_backends("cuda")["torch-cuda"]
    with pytest.raises(InputError, match="expected a backend of .*torch-cuda, got 'numpy'"):
        find_device_backend("numpy")


def read_switches() -> tuple[object, ...]:
    backends = torch.backends
    if hasattr(backends.cudnn, "conv"):
        kinds: tuple[object, ...] = (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision)
    else:
        kinds = (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32)
    return (*kinds, backends.cudnn.benchmark, backends.cudnn.deterministic)


def test_pytorchs_switches_are_set_for_a_call_and_put_back() -> None:
    before = read_switches()
    seen = {}
    for allows_tf32 in (False, True):
        with set_switches(torch, allows_tf32=allows_tf32):
            seen[allows_tf32] = read_switches()
        assert read_switches() == before
    assert seen[False] in (("ieee", "ieee", True, True), (False, False, True, True))
    assert seen[True] in (("tf32", "tf32", True, True), (True, True, True, True))
    with pytest.raises(KeyError), set_switches(torch, allows_tf32=True):
        raise KeyError
    assert read_switches() == before


def test_switches_have_their_older_names_before_pytorch_2_9() -> None:
    cudnn = SimpleNamespace(benchmark=False, deterministic=False, allow_tf32=True)
    matmul = SimpleNamespace(allow_tf32=False)
    old = SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn, cuda=SimpleNamespace(matmul=matmul)))
    for allows_tf32 in (False, True):
        with set_switches(old, allows_tf32=allows_tf32):
            assert vars(cudnn) == {"benchmark": True, "deterministic": True, "allow_tf32": allows_tf32}
            assert matmul.allow_tf32 == allows_tf32
        assert vars(cudnn) == {"benchmark": False, "deterministic": False, "allow_tf32": True}
        assert not matmul.allow_tf32


def test_an_engine_runs_with_its_own_switches(encoder: TorchCudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = bind(encoder)
    seen = []
    monkeypatch.setattr(encoder._program, "run", lambda bound: seen.append(read_switches()))
    encoder.enqueue(0)
    assert tensors and seen in ([("ieee", "ieee", True, True)], [(False, False, True, True)])


def test_what_pytorch_refuses_is_an_error_of_ours(encoder: TorchCudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = bind(encoder)
    for raised, expected, words in (
        (RuntimeError("CUDA error:\n an illegal access"), EngineError, "PyTorch failed: CUDA error: an illegal access"),
        (torch.OutOfMemoryError("tried to allocate 3 GiB"), DeviceError, "memory ran out .tried to allocate 3 GiB"),
    ):

        def fail(bound: object, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr(encoder._program, "run", fail)
        with pytest.raises(expected, match=words):
            encoder.enqueue(0)
    assert tensors


@pytest.mark.gpu
def test_nothing_is_allocated_after_the_first_call(bundle: Bundle, tmp_path: Path) -> None:
    options = EngineOptions(precision="fp16", batch=2)
    engine = load_engine(make_typed(make_stage(bundle, "fused_levels"), "fp16"), tmp_path, options, "cuda")
    tensors = bind(engine, "cuda")
    stream = torch.cuda.Stream()
    engine.enqueue(stream.cuda_stream)
    torch.cuda.synchronize()
    reserved, segments = torch.cuda.memory_reserved(), torch.cuda.memory_stats()["segment.all.allocated"]
    for _ in range(20):
        engine.enqueue(stream.cuda_stream)
    torch.cuda.synchronize()
    assert (torch.cuda.memory_reserved(), torch.cuda.memory_stats()["segment.all.allocated"]) == (reserved, segments)
    assert torch.isfinite(tensors["am1"]).all()


@pytest.mark.gpu
def test_work_goes_to_the_stream_that_is_given(bundle: Bundle, tmp_path: Path) -> None:
    engine = load_engine(make_stage(bundle, "encoder"), tmp_path, EngineOptions(batch=2), "cuda")
    tensors = bind(engine, "cuda")
    stream = torch.cuda.Stream()
    engine.enqueue(stream.cuda_stream)
    torch.cuda.synchronize()
    image = torch.from_numpy(bundle.golden().image).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # the image arrives late, on the same stream
        tensors["image"].copy_(image)
    engine.enqueue(stream.cuda_stream)
    stream.synchronize()
    late = tensors["f5"].clone()
    engine.enqueue(stream.cuda_stream)
    stream.synchronize()
    assert torch.equal(late, tensors["f5"]) and late.abs().sum() > 0


@pytest.mark.gpu
def test_addresses_outside_the_gpu_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    engine = load_engine(make_stage(bundle, "encoder"), tmp_path, EngineOptions(batch=2), "cuda")
    pointers = {name: tensor.data_ptr() for name, tensor in bind(engine, "cuda").items()}
    host = torch.zeros(2, 3, 64, 64)
    with pytest.raises(InputError, match=r"bound to 'image', is no(t| memory)"):
        engine.bind(pointers | {"image": host.data_ptr()})
