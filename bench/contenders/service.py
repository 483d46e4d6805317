"""A contender's own process: opens it, and does what the benchmark asks for, one request at a time.

Requests and answers are pickles on stdin and stdout: ("name", arguments) and ("value", value) or ("error", exception).
Both ends are ours. What libraries print goes to stderr.
"""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ndp_rt.bench.contenders.accuracy import measure_accuracy
from ndp_rt.bench.contenders.base import Contender, Image
from ndp_rt.bench.contenders.ours import InspectorContender
from ndp_rt.bench.contenders.spec import OURS, ContenderSpec, DeviceCost, Opened, Turn, TurnTimes, WarmUp
from ndp_rt.bench.peers.base import to_image
from ndp_rt.bundle.open import open_bundle
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import EngineError, NdpRtError
from ndp_rt.images.preprocess import read_image

WINDOW = 5  # queries whose median is compared with that of the next ones
STABLE = 0.05  # share by which two such medians may differ
PARENT_WATCH_S = 1.0  # what looking costs, some microseconds, is far below what a second's times vary by


class Service:
    """Answers requests; each method that does not start with an underscore is one."""

    def __init__(self) -> None:
        self._contender: Contender | None = None
        self._images: list[Image] = []
        self._paths: list[Path] = []
        self._next = 0

    def open(self, spec: ContenderSpec, image_paths: Sequence[str]) -> Opened:
        """Open the contender and read the images: those of `image_paths`, else the bundle's golden ones."""
        self._contender = open_contender(spec)
        if image_paths:
            self._paths = [Path(path) for path in image_paths]
            self._images = [read_image(path) for path in self._paths]
        else:
            self._images = [to_image(values) for values in open_bundle(spec.bundle).golden().image]
        one = self._contender
        return Opened(
            backend=one.backend,
            plan=one.plan,
            checks=dict(one.checks),
            notes=tuple(one.notes),
            facts=dict(one.facts),
        )

    def use_images(self, images: Sequence[Image]) -> None:
        """Inspect other images from now on, such as larger ones."""
        self._images, self._paths = list(images), []

    def warm_up(self, turn: Turn, limit_s: float) -> WarmUp:
        """Run queries until two medians of WINDOW times agree within STABLE, for `limit_s` at most."""
        times_ms: list[float] = []
        end = time.perf_counter() + limit_s
        while True:
            times_ms.append(self._time_query(turn))
            if len(times_ms) >= 2 * WINDOW:
                before, after = np.median(times_ms[-2 * WINDOW : -WINDOW]), np.median(times_ms[-WINDOW:])
                if abs(after - before) <= STABLE * before:
                    return WarmUp(query_count=len(times_ms), is_stable=True, query_ms=float(after))
            if time.perf_counter() >= end:
                last = float(np.median(times_ms[-WINDOW:]))
                return WarmUp(query_count=len(times_ms), is_stable=False, query_ms=last)

    def run_turn(self, turn: Turn, again_count: int) -> TurnTimes:
        """Run `again_count` untimed queries, because others had the processor meanwhile, and then the turn."""
        contender = self._open_contender()
        for _ in range(again_count):
            self._time_query(turn)
        contender.take_parts()
        start = time.perf_counter()
        if turn.arrivals_s is not None:
            latencies, image_count = self._serve(turn.arrivals_s, turn.batch), len(turn.arrivals_s)
        else:
            latencies = [self._time_query(turn)]
            while time.perf_counter() < start + turn.seconds:
                latencies.append(self._time_query(turn))
            image_count = len(latencies) * turn.query_size
        elapsed = time.perf_counter() - start
        return TurnTimes(
            latencies_ms=latencies, image_count=image_count, elapsed_s=elapsed, parts_ms=contender.take_parts()
        )

    def time_after_pause(self, batch: int, pause_s: float) -> float:
        """Return the milliseconds of one image after a pause."""
        time.sleep(pause_s)
        return self._time_query(Turn(batch=batch, query_size=1))

    def measure_accuracy(self, data: str) -> dict[str, Any]:
        """Return the contender's accuracy on labelled images."""
        return measure_accuracy(self._open_contender(), Path(data))

    def measure_device_cost(self, batch: int) -> DeviceCost:
        """Return what a batch costs on a GPU."""
        contender = self._open_contender()
        assert isinstance(contender, InspectorContender)  # asked of ours alone
        return contender.measure_device_cost(batch)

    def probe(self, name: str, *values: Any) -> Any:
        """Return what a function of `probe` returns; in a process that has no contender."""
        from ndp_rt.bench.contenders import probe

        return getattr(probe, name)(*values)

    def read_peak_memory(self) -> int | None:
        """Return this process's largest resident memory in bytes; None where the system does not say."""
        return read_peak_memory()

    def close(self) -> None:
        """Close the contender."""
        if self._contender is not None:
            self._contender.close()
            self._contender = None

    def _open_contender(self) -> Contender:
        assert self._contender is not None  # the first request is always `open`
        return self._contender

    def _take(self, count: int) -> list[Image]:
        """Return the next images, from the start again after the last; read anew where the files are timed."""
        source: Sequence[Any] = self._paths or self._images
        taken = list(islice(cycle(source), self._next, self._next + count))
        self._next = (self._next + count) % len(source)
        return [read_image(path) for path in taken] if self._paths else taken

    def _time_query(self, turn: Turn) -> float:
        """Return the milliseconds of a query; files are read inside the clock, images in memory are chosen outside."""
        decide = getattr(self._open_contender(), turn.method)
        images = [] if self._paths else self._take(turn.query_size)
        start = time.perf_counter()
        decide(images or self._take(turn.query_size), turn.batch)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        return elapsed_ms / turn.query_size if turn.method == "decide_all" else elapsed_ms

    def _serve(self, arrivals_s: Sequence[float], batch: int) -> list[float]:
        """Return each image's milliseconds from its arrival to its decision; those that wait share a batch."""
        contender, latencies = self._open_contender(), []
        start, done = time.perf_counter(), 0
        while done < len(arrivals_s):
            wait_s = start + arrivals_s[done] - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            now_s = time.perf_counter() - start
            count = 1
            while count < batch and done + count < len(arrivals_s) and arrivals_s[done + count] <= now_s:
                count += 1
            contender.decide(self._take(count), batch if count > 1 else 1)
            end_s = time.perf_counter() - start
            latencies += [(end_s - arrival) * 1e3 for arrival in arrivals_s[done : done + count]]
            done += count
        return latencies


def open_contender(spec: ContenderSpec) -> Contender:
    """Open an inspector of ours or a rival; what rivals import is no part of ours."""
    if spec.word == OURS:
        return InspectorContender(spec)
    from ndp_rt.bench.contenders.rival import RivalContender

    return RivalContender(spec)


def read_peak_memory() -> int | None:
    """Return this process's largest resident memory in bytes.

    Linux's VmHWM, which begins with the process; getrusage also counts the parent's memory before exec.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def answer(service: Service, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Do what a request asks for; no exception leaves but those that end a process."""
    try:
        return "value", getattr(service, name)(*arguments)
    except NdpRtError as error:
        return "error", type(error)(str(error))
    except MemoryError as error:
        return "error", EngineError(f"memory ran out ({error or 'no details'}). Take a smaller batch.")
    except Exception as error:  # what libraries raise shares no base
        return "error", EngineError(f"{type(error).__name__}: {one_line(error)}")


def leave_with_parent(parent_id: int) -> None:
    """End this process, also in the middle of a turn, once its parent is no more (POSIX: it is then another's)."""
    while os.getppid() == parent_id:
        time.sleep(PARENT_WATCH_S)
    os._exit(1)


def main(arguments: Sequence[str]) -> int:
    """Answer requests until stdin ends, or the benchmark does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends this process
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    requests: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    service = Service()
    while True:
        try:
            name, values = pickle.load(requests)
        except EOFError:
            service.close()
            return 0
        pickle.dump(answer(service, name, values), answers)
        answers.flush()
