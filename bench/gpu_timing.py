"""Times of a GPU pipeline: inspections from image to decision, streams of them, launches, and every step by itself."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.decide.decision import is_defective
from ndp_rt.devices.cuda.graph import Capture, CapturedGraph
from ndp_rt.errors import DeviceError
from ndp_rt.pipeline.stream import FrameReader
from ndp_rt.runtime.cuda import CudaExecutor
from ndp_rt.runtime.cuda_program import CudaProgram

Image = NDArray[np.uint8]
STEP_REPEATS = 20  # of a step in one capture, so that launching costs nothing beside it


def inspect_batch(runner: CudaExecutor, slot: Any, images: Sequence[Image], size: int, threshold: float) -> list[bool]:
    """Inspect images as one batch, from host memory to decisions: what the clock of every latency holds."""
    runner.start(slot, images, size)
    runner.finish(slot)
    return [is_defective(slot.score(index), threshold) for index in range(len(images))]


def time_batches(
    runner: CudaExecutor, slot: Any, images: Sequence[Image], size: int, threshold: float, count: int
) -> list[float]:
    """Return the milliseconds of `count` batches, one after another."""
    batch, times = list(islice(cycle(images), size)), []
    for _ in range(count):
        start = time.perf_counter()
        inspect_batch(runner, slot, batch, size, threshold)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def time_stream(runner: CudaExecutor, images: Sequence[Image], size: int, threshold: float, batch_count: int) -> float:
    """Return images a second through slots that overlap upload, plan and download, batches of `size`."""
    slots = [runner.make_batch() for _ in range(runner.stream_batch_count)]
    batch = list(islice(cycle(images), size))

    def start(slot: Any, batch: Sequence[Image]) -> tuple[int, int]:
        runner.start(slot, batch, size)
        return batch[0].shape[0], batch[0].shape[1]

    def give_batches() -> Iterator[Sequence[Image]]:
        yield from (batch for _ in range(batch_count))

    begun = time.perf_counter()
    reader = FrameReader(give_batches(), start, slots)
    for frame in reader:
        runner.finish(frame.batch)
        for index in range(size):
            is_defective(frame.batch.score(index), threshold)
        reader.release(frame)
    seconds = time.perf_counter() - begun
    reader.stop()
    for slot in slots:
        runner.release_batch(slot)
    return size * batch_count / seconds


def time_launches(plan: CudaProgram, size: int, count: int) -> float:
    """Return the host's microseconds to put one run on the stream, the median of `count`."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        plan.enqueue(size)
        times.append((time.perf_counter() - start) * 1e6)
        plan.stream.synchronize()  # outside the clock: a full queue would make the next launch wait
    return float(np.median(times))


def time_steps(plan: CudaProgram, size: int, capture: Capture, count: int) -> dict[str, float]:
    """Return the milliseconds of each step by itself, the median of `count`.

    A step is repeated STEP_REPEATS times in one graph, so its inputs may lie in the GPU's cache: a lower bound of what
    it takes in the pipeline, where steps also run side by side. Steps that cannot be captured are launched one by one.
    """
    cuda = plan.device.cupy.cuda
    times: dict[str, float] = {}
    for step in plan.list_steps(size):

        def repeat(step: Any = step) -> None:
            for _ in range(STEP_REPEATS):
                step.enqueue(plan.stream)

        repeat()
        plan.stream.synchronize()
        graph: CapturedGraph | None = None
        with contextlib.suppress(DeviceError):
            graph = capture(plan.stream, repeat)
        begin, end, found = cuda.Event(), cuda.Event(), []
        for _ in range(count):
            begin.record(plan.stream)
            if graph is None:
                repeat()
            else:
                graph.launch(plan.stream)
            end.record(plan.stream)
            end.synchronize()
            found.append(cuda.get_elapsed_time(begin, end) / STEP_REPEATS)
        times[step.name] = float(np.median(found))
    return times
