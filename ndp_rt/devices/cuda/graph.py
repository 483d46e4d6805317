"""Captures a stream's work as a CUDA graph, so that one launch repeats it."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.errors import DeviceError


class CapturedGraph(Protocol):
    """Captured work: the same operations on the same addresses at each launch."""

    def launch(self, stream: Any) -> None:
        """Put all of it on a stream; returns before it is done."""
        ...


_CAPTURES = threading.Lock()


@contextlib.contextmanager
def capturing_alone() -> Iterator[None]:
    """Hold back Python's garbage collection, and other captures of ours, meanwhile.

    A collection runs in whatever thread comes along. In the one that captures, to free memory, a stream or an event of
    CUDA's ends the capture. Its switch is one for all threads, so captures take turns.
    """
    with _CAPTURES:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


Capture = Callable[[Any, Callable[[], None]], CapturedGraph]


def capture_graph(device: CudaDevice, stream: Any, enqueue: Callable[[], None]) -> CapturedGraph:
    """Capture what `enqueue` puts on `stream`, and on streams that it forks from it and joins again.

    In "thread-local" mode: other threads may go on using CUDA meanwhile. Nothing is left capturing after a failure.

    Args:
        device: the stream's.
        stream: a non-blocking CuPy stream; the legacy default stream cannot be captured.
        enqueue: called once. It must have run before, so that nothing is compiled or allocated any more.

    Raises:
        DeviceError: CUDA or a library refuses; the message holds its reason.
    """
    runtime = device.cupy.cuda.runtime
    try:
        stream.begin_capture(runtime.streamCaptureModeThreadLocal)
        try:
            enqueue()
        finally:
            graph: CapturedGraph = stream.end_capture()
    except RuntimeError as error:  # ours from a launcher or an engine, CuPy's from the runtime
        raise DeviceError(f"the work cannot be captured as a CUDA graph: {' '.join(str(error).split())}") from error
    return graph
