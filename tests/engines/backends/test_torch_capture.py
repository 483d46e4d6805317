"""Capturing through PyTorch: its calls in order and its failures on a fake of torch.cuda, the work itself on a GPU."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.torch import capture as torch_capture
from ndp_rt.engines.backends.torch.capture import capture_graph
from ndp_rt.errors import ClosedError, DeviceError, EngineError

STREAM = SimpleNamespace(ptr=77)


class FakeTorch:
    """torch.cuda as far as captures need it, behaving as PyTorch 2.13's source does; `events` has what was called."""

    def __init__(self, *, begin_error: str = "", end_error: str = "") -> None:
        self.begin_error, self.end_error = begin_error, end_error
        self.events: list[object] = []
        self.current: object = "the caller's"
        self.is_capturing = False
        self.cuda = self
        self._C = SimpleNamespace(
            _cuda_endAllocateToPool=lambda device, pool: self.events.append(("end allocation", device, pool)),
            _cuda_releasePool=lambda device, pool: self._refuse("release", device, pool),
        )

    def _refuse(self, *event: object) -> None:
        self.events.append(event)
        raise RuntimeError("not recording to that pool")

    def ExternalStream(self, ptr: int) -> SimpleNamespace:
        return SimpleNamespace(ptr=ptr, synchronize=lambda: self.events.append("synchronize"))

    @contextlib.contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream.ptr
        try:
            yield
        finally:
            self.current = before

    def CUDAGraph(self) -> SimpleNamespace:
        def replay() -> None:
            self.events.append(("replay", self.current))

        return SimpleNamespace(replay=replay, reset=lambda: self.events.append("reset"))

    def graph_pool_handle(self) -> str:
        return "pool"

    def current_device(self) -> int:
        return 0

    def graph(self, graph: object, *, pool: object, stream: SimpleNamespace, capture_error_mode: str) -> "FakeCapture":
        self.events.append(("graph", pool, stream.ptr, capture_error_mode))
        return FakeCapture(self, stream)


class FakeCapture:
    """torch.cuda.graph: leaves its stream current when the end of the capture fails."""

    def __init__(self, torch: FakeTorch, stream: SimpleNamespace) -> None:
        self.torch, self.stream = torch, stream

    def __enter__(self) -> None:
        self.before, self.torch.current = self.torch.current, self.stream.ptr
        if self.torch.begin_error:
            raise RuntimeError(self.torch.begin_error)
        self.torch.is_capturing = True

    def __exit__(self, *_: object) -> None:
        self.torch.is_capturing = False
        self.torch.events.append("end")
        if self.torch.end_error:
            raise RuntimeError(self.torch.end_error)
        self.torch.current = self.before


def make_enqueue(torch: FakeTorch, error: Exception | None = None) -> Callable[[], None]:
    """Return work that notes its stream, and raises `error` while it is captured."""

    def enqueue() -> None:
        torch.events.append(("captured" if torch.is_capturing else "run", torch.current))
        if torch.is_capturing and error is not None:
            raise error

    return enqueue


@pytest.fixture(autouse=True)
def no_failed_graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    failed: list[Any] = []
    monkeypatch.setattr(torch_capture, "_FAILED", failed)
    return failed


def test_work_runs_once_before_it_is_captured_and_can_be_launched_anywhere() -> None:
    torch = FakeTorch()
    graph = capture_graph(torch, STREAM, make_enqueue(torch))
    assert torch.events == [
        ("run", 77),
        "synchronize",
        ("graph", "pool", 77, "thread_local"),
        ("captured", 77),
        "end",
    ]
    assert torch.current == "the caller's"
    torch.events.clear()
    for ptr in (77, 12, 77):
        graph.launch(SimpleNamespace(ptr=ptr))
    assert torch.events == [("replay", 77), ("replay", 12), ("replay", 77)]


def test_a_closed_graph_says_so() -> None:
    torch = FakeTorch()
    graph = capture_graph(torch, STREAM, make_enqueue(torch))
    graph.close()
    graph.close()
    assert torch.events.count("reset") == 1
    with pytest.raises(ClosedError, match="the graph is closed"):
        graph.launch(STREAM)


def test_work_that_fails_while_it_is_captured_ends_the_capture(no_failed_graphs: list[Any]) -> None:
    torch = FakeTorch()
    with pytest.raises(
        DeviceError, match="cannot be captured as a CUDA graph: the launch of smooth was refused"
    ) as caught:
        capture_graph(torch, STREAM, make_enqueue(torch, EngineError("the launch of\n smooth was refused")))
    assert isinstance(caught.value.__cause__, EngineError)
    assert torch.events[-2:] == ["end", "reset"]
    assert (torch.current, torch.is_capturing, no_failed_graphs) == ("the caller's", False, [])


def test_an_end_that_fails_leaves_stream_and_allocator_as_they_were(no_failed_graphs: list[Any]) -> None:
    torch = FakeTorch(end_error="operation failed due to a previous error during capture")
    with pytest.raises(DeviceError, match="due to a previous error during capture"):
        capture_graph(torch, STREAM, make_enqueue(torch))
    assert torch.events[-3:] == ["end", ("end allocation", 0, "pool"), ("release", 0, "pool")]
    assert (torch.current, torch.is_capturing, len(no_failed_graphs)) == ("the caller's", False, 1)


def test_the_works_own_error_is_named_before_the_ends() -> None:
    torch = FakeTorch(end_error="capture was invalidated")
    with pytest.raises(DeviceError, match="graph: out of slots"):
        capture_graph(torch, STREAM, make_enqueue(torch, ValueError("out of slots")))
    assert torch.current == "the caller's"


def test_a_capture_that_does_not_begin_is_the_same_error(no_failed_graphs: list[Any]) -> None:
    torch = FakeTorch(begin_error="the legacy stream cannot be captured")
    with pytest.raises(DeviceError, match="the legacy stream cannot be captured"):
        capture_graph(torch, STREAM, make_enqueue(torch))
    assert "end" not in torch.events
    assert (torch.current, len(no_failed_graphs)) == ("the caller's", 1)


def test_work_that_fails_uncaptured_is_not_captured() -> None:
    torch = FakeTorch()

    def fail() -> None:
        raise EngineError("no memory is bound")

    with pytest.raises(EngineError, match="no memory is bound"):
        capture_graph(torch, STREAM, fail)
    assert torch.events == [] and torch.current == "the caller's"


@pytest.mark.torch
def test_pytorch_has_what_the_fake_stands_for() -> None:
    import torch

    assert {"pool", "stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)
    assert all(hasattr(torch.cuda.CUDAGraph, name) for name in ("replay", "reset"))
    assert all(
        hasattr(torch.cuda, name) for name in ("ExternalStream", "graph_pool_handle", "current_device", "stream")
    )


@pytest.mark.gpu
class TestOnAGpu:
    """CuPy's streams and kernels with PyTorch's graphs."""

    @pytest.fixture
    def fused(self, bundle: Bundle, tmp_path: Path) -> Any:
        pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[train]'")
        from ndp_rt.graphs.stages import make_stage
        from ndp_rt.graphs.typed import make_typed
        from tests.engines.staged_plan import load_engine

        options = EngineOptions(precision="fp16", batch=2)
        return load_engine(make_typed(make_stage(bundle, "fused_levels"), "fp16"), tmp_path, options, "cuda")

    def bind(self, engine: Any) -> dict[str, Any]:
        import torch

        specs = (*engine.inputs.values(), *engine.outputs.values())
        tensors = {s.name: torch.zeros(s.shape, dtype=getattr(torch, s.dtype), device="cuda") for s in specs}
        engine.bind({name: tensor.data_ptr() for name, tensor in tensors.items()})
        return tensors

    def test_a_launch_equals_the_uncaptured_run(self, fused: Any, bundle: Bundle) -> None:
        import cupy
        import torch

        tensors, stream = self.bind(fused), cupy.cuda.Stream(non_blocking=True)
        doubled = cupy.zeros(tensors["am1"].shape, cupy.float32)
        am1 = cupy.asarray(tensors["am1"])

        def enqueue() -> None:
            fused.enqueue(stream.ptr)
            with stream:
                cupy.multiply(am1, 2, out=doubled)  # a kernel of CuPy's after PyTorch's, on one stream

        graph = capture_graph(torch, stream, enqueue)
        images = torch.from_numpy(bundle.golden().image).cuda().half()
        for image in (images, images.flip(0), torch.zeros_like(images)):
            tensors["image"].copy_(image)
            torch.cuda.synchronize()
            enqueue()
            stream.synchronize()
            expected = {name: tensor.clone() for name, tensor in tensors.items()}, doubled.copy()
            for tensor in (tensors["am1"], tensors["am3"], tensors["reconstruction"]):
                tensor.zero_()
            torch.cuda.synchronize()
            graph.launch(stream)
            stream.synchronize()
            assert all(torch.equal(tensors[name], tensor) for name, tensor in expected[0].items())
            assert (doubled == expected[1]).all()
        graph.close()

    def test_a_refused_capture_leaves_the_stream_usable(self, fused: Any) -> None:
        import cupy
        import torch

        tensors, stream = self.bind(fused), cupy.cuda.Stream(non_blocking=True)

        def synchronize() -> None:
            fused.enqueue(stream.ptr)
            stream.synchronize()  # which CUDA forbids while it captures

        before = torch.cuda.current_stream()
        for _ in range(2):
            with pytest.raises(DeviceError, match="cannot be captured as a CUDA graph"):
                capture_graph(torch, stream, synchronize)
            assert torch.cuda.current_stream() == before
        graph = capture_graph(torch, stream, lambda: fused.enqueue(stream.ptr))
        graph.launch(stream)
        stream.synchronize()
        assert torch.isfinite(tensors["am1"]).all()

    def test_replays_allocate_nothing(self, fused: Any) -> None:
        import cupy
        import torch

        tensors, stream = self.bind(fused), cupy.cuda.Stream(non_blocking=True)
        graph = capture_graph(torch, stream, lambda: fused.enqueue(stream.ptr))
        free = torch.cuda.mem_get_info()[0]
        for _ in range(200):
            graph.launch(stream)
        stream.synchronize()
        assert torch.cuda.mem_get_info()[0] == free
        assert torch.isfinite(tensors["am1"]).all()
