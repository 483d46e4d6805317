"""Rivals on the CPU, where their classes are the same, with the tiny bundle; on a GPU with the bricks'."""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.rivals import NAMES, find_rival
from ndp_rt.bench.rivals.base import Rival, open_checked, to_image
from ndp_rt.bench.rivals.device_engines import OnnxRuntimeCudaRival, OnnxRuntimeEngine, TensorRtRival, prepare, smooth
from ndp_rt.bench.rivals.fused_graph import HostEngineRival
from ndp_rt.bench.rivals.pytorch import TorchRival
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.engines.backend import BackendStatus, EngineOptions
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels.preprocess.definition import preprocess
from ndp_rt.kernels.smooth import definition
from tests.bricks import BRICKS
from tests.tiny_bundle import make_tiny_bundle
from tests.tolerances import assert_close

NEEDS_TORCH = pytest.mark.torch
THERE = BackendStatus(version="1.0", devices=("CPU",))


def list_rivals(device: str) -> tuple[Rival, ...]:
    return tuple(find_rival(name, device) for name in NAMES[device])


class HostArrays:
    """Arrays in the host's memory, in place of CuPy's."""

    device = "cpu"
    stream_pointer = 0

    def __init__(self) -> None:
        self.xp: Any = np
        self.ndimage: Any = importlib.import_module("scipy.ndimage")

    def use(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def make_pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def copy(self, source: Any, target: Any) -> None:
        target[...] = source

    def synchronize(self) -> None:
        """Nothing is on its way."""


class StandInEngine(OnnxRuntimeEngine):
    """What TensorRT's engine tells besides, and whether it was closed."""

    is_closed = False

    def close(self) -> None:
        super().close()
        self.is_closed = True

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return {}


class StandInBackend:
    """A device backend that "builds" what ONNX Runtime then runs on the CPU."""

    name = "stand-in"
    precisions = ("fp32", "fp16")

    def __init__(self, status: BackendStatus = THERE) -> None:
        self.status = status
        self.loaded: list[StandInEngine] = []

    def find(self) -> BackendStatus:
        return self.status

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        shutil.copyfile(onnx_path, artifact / "plan")
        return {}

    def load(self, artifact: Path, options: EngineOptions) -> StandInEngine:
        content = (artifact / "plan").read_bytes()
        self.loaded.append(StandInEngine(content, HostArrays(), allows_tf32=False, has_graph=False))
        return self.loaded[-1]

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        """The engine is what the graph says."""


@pytest.fixture
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle, verify=False)


@pytest.fixture
def torch() -> Iterator[Any]:
    found = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[train]'")
    before = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(before)


def make_torch_rival(*, smooths_on_host: bool = True, **compile_options: Any) -> TorchRival:
    return TorchRival("torch", compile_options or None, "cpu", smooths_on_host=smooths_on_host)


CPU_RIVALS = [
    pytest.param(make_torch_rival(), id="pytorch", marks=NEEDS_TORCH),
    # As on a GPU: Dynamo and autograd's tracing are the same; Inductor would compile C++ here for a minute.
    pytest.param(make_torch_rival(smooths_on_host=False), id="pytorch-as-on-a-gpu", marks=NEEDS_TORCH),
    pytest.param(
        make_torch_rival(smooths_on_host=False, backend="aot_eager"), id="torch-compile-as-on-a-gpu", marks=NEEDS_TORCH
    ),
    pytest.param(make_torch_rival(backend="aot_eager"), id="torch-compile", marks=NEEDS_TORCH),
    pytest.param(HostEngineRival("onnxruntime", "onnxruntime"), id="onnxruntime"),
    pytest.param(HostEngineRival("openvino", "openvino"), id="openvino"),
    pytest.param(OnnxRuntimeCudaRival(HostArrays), id="onnxruntime-cuda"),
    pytest.param(TensorRtRival(StandInBackend(), HostArrays), id="tensorrt-fused"),
]
KINDS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
TRIED_ON_THE_CPU = [
    pytest.param(*rival.values, precision, id=f"{rival.id}-{precision}", marks=rival.marks)
    for rival in CPU_RIVALS
    for precision in KINDS
    if precision in rival.values[0].precisions and (precision != "bf16" or rival.id == "pytorch")
]


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize(("rival", "precision"), TRIED_ON_THE_CPU)
def test_a_rival_gives_the_golden_maps_and_scores_of_every_image_of_a_batch(
    tiny: Bundle, rival: Rival, precision: str
) -> None:
    runner, check = open_checked(rival, tiny, precision, 3, threads=1)
    assert check.allowed is not None and 0.0 <= check.map_max_abs_difference <= check.allowed
    assert check.image_count == len(tiny.golden().image)
    golden = tiny.golden()
    rows = [1, 0, 1]
    maps, scores = runner.run([to_image(golden.image[row]) for row in rows])
    assert (maps.dtype, scores.dtype) == (np.float32, np.float32)
    assert_close(maps, definition.smooth(golden.map[rows]), "map", KINDS[precision])
    assert_close(scores, golden.score[rows], "map", KINDS[precision])
    assert not runner.facts.get("cuda_graph")
    runner.close()


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("rival", [CPU_RIVALS[0], CPU_RIVALS[4], CPU_RIVALS[5], CPU_RIVALS[6], CPU_RIVALS[7]])
def test_a_rival_that_is_wrong_is_refused_by_name_and_closed(tmp_path: Path, rival: Rival) -> None:
    wrong = make_tiny_bundle(tmp_path / "wrong.ndp", map_shift=0.01)
    with pytest.raises(EngineError, match=rf"^{rival.name}: .*disagrees with the bundle's golden vectors"):
        open_checked(rival, wrong, "fp32", 1)
    if isinstance(rival, TensorRtRival):
        backend: Any = rival._backend
        assert backend.loaded[-1].is_closed


def test_a_precision_that_a_rival_has_not_is_refused(tiny: Bundle) -> None:
    with pytest.raises(InputError, match="onnxruntime-cuda: expected one of .* fp32, tf32, fp16, got 'bf16'"):
        open_checked(OnnxRuntimeCudaRival(HostArrays), tiny, "bf16", 1)


def test_what_is_missing_is_said_with_what_to_do(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for rival, words in (
        (OnnxRuntimeCudaRival(), "has no CUDAExecutionProvider: pip install onnxruntime-gpu"),
        (TensorRtRival(StandInBackend(BackendStatus(version=None, remedy="pip install it"))), "pip install it"),
        (TensorRtRival(StandInBackend(BackendStatus(version="10.0"))), "no GPU.*driver"),
    ):
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
        with pytest.raises(MissingExtraError, match=rf"^{rival.name} cannot run here: .*{words}"):
            open_checked(rival, tiny, "fp32", 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for rival in (*list_rivals("cuda")[:4], *list_rivals("cpu")):
        assert "is not installed: pip install" in (rival.find() or "")


def test_the_plain_rival_refuses_a_rewritten_graph_and_says_how_to_get_the_plain_one(tiny: Bundle) -> None:
    model = dataclasses.replace(tiny.manifest.model, rewrites=("fold_batch_norm",))
    rewritten = dataclasses.replace(tiny, manifest=dataclasses.replace(tiny.manifest, model=model))
    (rival,) = (rival for rival in list_rivals("cpu") if rival.name == "openvino-plain")
    with pytest.raises(InputError, match="rewritten one.*--no-rewrite, and give it with --plain PLAIN.ndp"):
        open_checked(rival, rewritten, "fp32", 1)


@pytest.mark.parametrize("rival", [CPU_RIVALS[0], CPU_RIVALS[4]])
def test_threads_are_one_or_more(tiny: Bundle, rival: Rival) -> None:
    with pytest.raises(InputError, match="expected 1 thread or more, .*got 0"):
        open_checked(rival, tiny, "fp32", 1, threads=0)


@NEEDS_TORCH
def test_threads_are_those_asked_for_while_a_rival_is_open(tiny: Bundle, torch: Any) -> None:
    runner, _ = open_checked(make_torch_rival(), tiny, "fp32", 1, threads=2)
    assert torch.get_num_threads() == 2
    runner.close()
    assert torch.get_num_threads() == 1


@NEEDS_TORCH
@pytest.mark.nightly
def test_more_compiled_rivals_than_one_piece_of_code_may_have_stay_compiled(tiny: Bundle, torch: Any) -> None:
    rival, images = make_torch_rival(backend="aot_eager"), [to_image(tiny.golden().image[0])]
    with torch._dynamo.config.patch(recompile_limit=1):
        runners = [open_checked(rival, tiny, precision, 1)[0] for precision in ("fp32", "bf16", "fp32")]
        graph_count = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for runner in runners:
            runner.run(images)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graph_count
    for runner in runners:
        runner.close()


@pytest.mark.nightly
@NEEDS_TORCH
def test_the_weights_are_read_where_they_are_by_a_cuda_graph(tiny: Bundle, torch: Any) -> None:
    kinds = []

    def look(graph: Any, inputs: Any) -> Any:
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        kinds.extend(node.meta["tensor_dict"].get("_dynamo_static_input_type") for node in placeholders)
        return graph.forward

    open_checked(make_torch_rival(backend=look), tiny, "fp32", 1)[0].close()
    assert kinds.count(None) == 1 and len(kinds) > 10  # the images alone are copied in


@NEEDS_TORCH
def test_what_a_compiler_refuses_is_an_error_with_its_reason(tiny: Bundle, torch: Any) -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such luck")

    with pytest.raises(EngineError, match="cannot run or compile the graph: .*no such luck"):
        open_checked(make_torch_rival(backend=refuse), tiny, "fp32", 1)


@NEEDS_TORCH
@pytest.mark.parametrize("allows_tf32", [False, True])
def test_switches_are_what_inductor_may_read_and_are_put_back(torch: Any, allows_tf32: bool) -> None:
    from ndp_rt.bench.rivals.pytorch import set_switches
    from ndp_rt.engines.backends.torch import engine as torch_cuda

    def read() -> tuple[Any, ...]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32, torch.get_float32_matmul_precision()

    before = read()
    with set_switches(torch, allows_tf32=allows_tf32):
        assert read()[:3] == (True, allows_tf32, allows_tf32)
    with torch_cuda.set_switches(torch, allows_tf32=allows_tf32):
        pass  # our own, by the newer names, in turn with rivals
    assert read() == before


@NEEDS_TORCH
@pytest.mark.parametrize("has_network", [False, True])
def test_smoothing_with_pytorch_is_the_definitions(rng: np.random.Generator, torch: Any, has_network: bool) -> None:
    from ndp_rt.bench.rivals import torch_modules

    maps = rng.random((2, 1, 13, 9), np.float32)
    found = torch_modules.smooth(torch.from_numpy(maps), has_network=has_network)
    assert_close(found.numpy(), definition.smooth(maps), "smooth", "float32")


@NEEDS_TORCH
@pytest.mark.parametrize("count", [1, 3, 9, 25])
def test_exchanges_bring_the_middle_one_to_its_place(rng: np.random.Generator, torch: Any, count: int) -> None:
    from ndp_rt.bench.rivals.torch_modules import find_median, list_exchanges

    values = rng.integers(0, 12, (count, 4000)).astype(np.float32)  # many are equal
    found = find_median([torch.from_numpy(row) for row in values])
    assert np.array_equal(found.numpy(), np.median(values, axis=0))
    assert len(list_exchanges(25, 12)) <= 113  # of the 138 of the whole sort


def test_preparing_and_smoothing_with_arrays_are_the_definitions(rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (2, 7, 5, 3), dtype=np.uint8)
    image = np.empty((2, 3, 7, 5), np.float32)
    prepare(np, pictures, image)
    expected = np.stack([preprocess(picture, 7, 5) for picture in pictures])
    assert_close(image, expected, "preprocess", "float32")
    maps, arrays = rng.random((2, 1, 13, 9), np.float32), HostArrays()
    assert_close(smooth(arrays.ndimage, maps), definition.smooth(maps), "smooth", "float32")


def test_cupy_has_what_rivals_call_on_a_gpu() -> None:
    cupyx = pytest.importorskip("cupyx", reason="needs CuPy, which imports without a GPU: pip install -e '.[test]'")
    ndimage = pytest.importorskip("cupyx.scipy.ndimage", reason="needs CuPy and SciPy: pip install -e '.[test]'")
    for function in (ndimage.uniform_filter, ndimage.median_filter):
        inspect.signature(function).bind(None, size=(1, 1, 5, 5), mode="nearest")
    inspect.signature(cupyx.empty_pinned).bind((1, 2), np.uint8)


TRIED_ON_A_GPU = [
    pytest.param(rival, precision, id=f"{rival.name}-{precision}")
    for rival in list_rivals("cuda")
    for precision in rival.precisions
    if precision == "fp16" or not rival.name.endswith("autotuned")  # tuning takes minutes
]


@pytest.mark.gpu
@pytest.mark.parametrize(("rival", "precision"), TRIED_ON_A_GPU)
def test_every_rival_gives_the_bricks_golden_maps_on_a_gpu(rival: Rival, precision: str) -> None:
    reason = rival.find()
    if reason is not None:
        pytest.skip(reason)
    runner, check = open_checked(rival, open_bundle(BRICKS, verify=False), precision, 3)
    print(f"map {check.map_max_abs_difference:.2e} of {check.allowed:.0e}; {dict(runner.facts)}")
    runner.close()
