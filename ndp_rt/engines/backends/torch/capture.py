"""CUDA graphs through PyTorch, whose allocator has to know of a capture, to give the graph memory of its own."""

import contextlib
from collections.abc import Callable
from typing import Any

from ndp_rt.engines.engine import one_line
from ndp_rt.errors import ClosedError, DeviceError

# Graphs whose capture failed. PyTorch's allocator keeps a pointer into them (seen in 2.13's CUDAGraph.cpp: capture_end
# ends the routing of allocations only after CUDA has accepted the capture), so they must outlive it. They hold nothing.
_FAILED: list[Any] = []


class TorchGraph:
    """Captured work and the memory that belongs to it; see `ndp_rt.devices.cuda.graph.CapturedGraph`."""

    def __init__(self, torch: Any, graph: Any) -> None:
        self._torch = torch
        self._graph = graph
        self._streams: dict[int, Any] = {}

    def launch(self, stream: Any) -> None:
        """Put all of it on a CuPy stream; returns before it is done."""
        if self._graph is None:
            raise ClosedError("the graph is closed. Capture another.")
        if stream.ptr not in self._streams:
            self._streams[stream.ptr] = self._torch.cuda.ExternalStream(stream.ptr)
        with self._torch.cuda.stream(self._streams[stream.ptr]):
            self._graph.replay()

    def close(self) -> None:
        """Free the graph and its memory; the caller has waited for it. Twice is allowed."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.reset()


def capture_graph(torch: Any, stream: Any, enqueue: Callable[[], None]) -> TorchGraph:
    """Capture what `enqueue` puts on `stream`, and on streams that it forks from it and joins again.

    It runs twice: once as it is, in this thread and on this stream, because cuDNN chooses its algorithms, and cuBLAS
    allocates its workspace, per thread and stream at the first call; then to be captured. Other threads may go on using
    CUDA meanwhile ("thread_local"), but must not capture through PyTorch at the same time.

    Args:
        torch: the module.
        stream: a non-blocking CuPy stream; the legacy default stream cannot be captured.
        enqueue: our kernels and engines of backend torch-cuda, on that stream.

    Raises:
        DeviceError: CUDA or a library refuses; the message holds its reason. Nothing is left capturing then, and the
            thread's current PyTorch stream is the one that it was.
        NdpRtError: what `enqueue` itself raises in its first run.
    """
    external = torch.cuda.ExternalStream(stream.ptr)
    # torch.cuda.graph leaves its stream current when the end of a capture fails; the outer `with` puts it back.
    with torch.cuda.stream(external):
        enqueue()
        external.synchronize()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        reason: Exception | None = None
        try:
            with torch.cuda.graph(graph, pool=pool, stream=external, capture_error_mode="thread_local"):
                try:
                    enqueue()
                except Exception as error:
                    reason = error  # rather than what it makes of the capture's end
        except RuntimeError as error:
            _abandon(torch, graph, pool)
            reason = reason or error
        else:
            if reason is None:
                return TorchGraph(torch, graph)
            graph.reset()
    raise DeviceError(f"the work cannot be captured as a CUDA graph: {one_line(reason)}") from reason


def _abandon(torch: Any, graph: Any, pool: Any) -> None:
    """Let PyTorch's allocator forget a capture whose end failed; CUDA has ended it on the stream by itself."""
    _FAILED.append(graph)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):  # what CUDAGraph calls where nothing fails
        forget = getattr(torch._C, name, None)
        if forget is not None:
            with contextlib.suppress(RuntimeError):  # it had come that far
                forget(torch.cuda.current_device(), pool)
