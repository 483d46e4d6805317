"""Times of a program's steps on a GPU, each by itself."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ndp_rt.devices.cuda.graph import CapturedGraph
from ndp_rt.errors import DeviceError
from ndp_rt.runtime.cuda_program import CudaProgram

MEDIAN_COUNT = 50  # of times of which the median is a step's
STEP_REPEATS = 20  # of a step in one capture, so that launching costs nothing beside it


def profile_steps(program: CudaProgram, size: int) -> dict[str, float]:
    """Return the milliseconds of each step of one batch size by itself.

    Its inputs may lie in the GPU's cache: a lower bound of what it takes in the pipeline, where steps also run side by
    side.
    """
    return {step.name: time_work(program, partial(step.enqueue, program.stream)) for step in program.list_steps(size)}


def time_work(program: CudaProgram, enqueue: Callable[[], None]) -> float:
    """Return the milliseconds of what `enqueue` puts on the program's stream.

    It is repeated in one graph; what cannot be captured is launched one by one.
    """

    def repeat() -> None:
        for _ in range(STEP_REPEATS):
            enqueue()

    repeat()
    program.stream.synchronize()
    graph: CapturedGraph | None = None
    with contextlib.suppress(DeviceError):
        graph = program.capture_work(repeat)
    return time_repeats(program, repeat if graph is None else partial(graph.launch, program.stream))


def time_repeats(program: CudaProgram, repeat: Callable[[], Any]) -> float:
    """Return the milliseconds of one of the STEP_REPEATS that `repeat` puts on the program's stream."""
    cuda = program.device.cupy.cuda
    begin, end, found = cuda.Event(), cuda.Event(), []
    for _ in range(MEDIAN_COUNT):
        begin.record(program.stream)
        repeat()
        end.record(program.stream)
        end.synchronize()
        found.append(cuda.get_elapsed_time(begin, end) / STEP_REPEATS)
    return float(np.median(found))
