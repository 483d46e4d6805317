"""The process of one that is timed: opens it, and does what the benchmark asks for, one request at a time.

Requests and answers are pickles on stdin and stdout: ("name", arguments) and ("value", value) or ("error", exception).
Both ends are ours. What libraries print goes to stderr.
"""

import importlib.util
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.timed.spec import OURS, FloatArray, Image, Opened, Timed, TimedSpec, Turn, TurnTimes, WarmUp
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import DataError, EngineError, NdpRtError
from ndp_rt.evaluate.record import Record

WINDOW = 5  # queries whose median is compared with that of the next ones
STABLE = 0.05  # share by which two such medians may differ
PARENT_WATCH_S = 1.0  # what looking costs, some microseconds, is far below what a second's times vary by


class Service:
    """Answers requests; each method that does not start with an underscore is one."""

    def __init__(self) -> None:
        self._timed: Timed | None = None
        self._bundle: Bundle | None = None
        self._images: list[Image] = []
        self._paths: list[Path] = []
        self._next = 0

    def open(self, spec: TimedSpec, image_paths: Sequence[str]) -> Opened:
        """Open what is timed, and the images: those of `image_paths`, else the bundle's golden ones."""
        self._timed = one = open_timed(spec)
        self._bundle = open_bundle(spec.bundle)
        self._paths = [Path(path) for path in image_paths]
        self._images = [to_image(values) for values in self._bundle.golden().image]
        return one.opened

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
        timed = self._open_timed()
        for _ in range(again_count):
            self._time_query(turn)
        timed.take_parts()
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
            latencies_ms=latencies, image_count=image_count, elapsed_s=elapsed, parts_ms=timed.take_parts()
        )

    def time_after_pause(self, batch: int, pause_s: float) -> float:
        """Return the milliseconds of one image after a pause."""
        time.sleep(pause_s)
        return self._time_query(Turn(batch=batch, query_size=1))

    def measure_accuracy(self, data: str, page: int | None) -> Record:
        """Return the accuracy on labelled images."""
        return measure_accuracy(self._open_timed(), Path(data), page)

    def measure_cost(self, batch: int, gflop_per_s: float | None) -> Record:
        """Return what a batch of ours costs on a GPU."""
        from ndp_rt.bench.gpu_cost import measure_cost

        one, bundle = self._on_gpu()
        return measure_cost(one.runner, bundle, batch, gflop_per_s)

    def trace_tensors(self, batch: int) -> dict[str, FloatArray]:
        """Return every tensor of ours on a GPU, for the first golden image."""
        from ndp_rt.bench.gpu_cost import trace_tensors

        one, bundle = self._on_gpu()
        return dict(trace_tensors(one.runner, bundle, batch))

    def soak(self, batch: int, inspection_count: int) -> Record:
        """Inspect so often on a GPU, and return how much of its memory is gone."""
        from ndp_rt.bench.gpu_cost import count_free_bytes

        one, _ = self._on_gpu()
        before = count_free_bytes(one.runner)
        for _ in range(inspection_count):
            one.decide(self._take(batch), batch)
        return {"inspection_count": inspection_count, "lost_bytes": before - count_free_bytes(one.runner)}

    def _on_gpu(self) -> tuple[Any, Bundle]:
        assert self._bundle is not None  # the first request is always `open`
        return self._open_timed(), self._bundle

    def probe(self, name: str, *values: Any) -> Any:
        """Return what a function of `probe` returns; in a process in which nothing is open."""
        from ndp_rt.bench.timed import probe

        return getattr(probe, name)(*values)

    def read_peak_memory(self) -> int | None:
        """Return this process's largest resident memory in bytes; None where the system does not say."""
        return read_peak_memory()

    def close(self) -> None:
        """Close what is open."""
        if self._timed is not None:
            self._timed.close()
            self._timed = None

    def _open_timed(self) -> Timed:
        assert self._timed is not None  # the first request is always `open`
        return self._timed

    def _take(self, count: int) -> list[Image]:
        """Return the next images, from the start again after the last; read anew where the files are timed."""
        source: Sequence[Any] = self._paths or self._images
        taken = list(islice(cycle(source), self._next, self._next + count))
        self._next = (self._next + count) % len(source)
        if not self._paths:
            return taken
        from ndp_rt.images.read import read_image

        return [read_image(path) for path in taken]

    def _time_query(self, turn: Turn) -> float:
        """Return the milliseconds of a query; files are read inside the clock, images in memory are chosen outside."""
        decide = getattr(self._open_timed(), turn.method)
        images = [] if self._paths else self._take(turn.query_size)
        start = time.perf_counter()
        decide(images or self._take(turn.query_size), turn.batch)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        return elapsed_ms / turn.query_size if turn.method == "decide_all" else elapsed_ms

    def _serve(self, arrivals_s: Sequence[float], batch: int) -> list[float]:
        """Return each image's milliseconds from its arrival to its decision; those that wait share a batch."""
        timed, latencies = self._open_timed(), []
        start, done = time.perf_counter(), 0
        while done < len(arrivals_s):
            wait_s = start + arrivals_s[done] - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            now_s = time.perf_counter() - start
            count = 1
            while count < batch and done + count < len(arrivals_s) and arrivals_s[done + count] <= now_s:
                count += 1
            timed.decide(self._take(count), batch if count > 1 else 1)
            end_s = time.perf_counter() - start
            latencies += [(end_s - arrival) * 1e3 for arrival in arrivals_s[done : done + count]]
            done += count
        return latencies


def open_timed(spec: TimedSpec) -> Timed:
    """Open an inspector of ours or a rival; what rivals import is no part of ours."""
    if spec.onnx_stages is not None:
        from ndp_rt.bench.gpu_cost import build_from_stages

        build_from_stages(spec)
    if spec.word != OURS:
        from ndp_rt.bench.timed.rival import TimedRival

        return TimedRival(spec)
    from ndp_rt.bench.timed.inspector import TimedInspector

    return TimedInspector(spec)


class Judged(NamedTuple):
    """What is found in an image; areas need no decision."""

    anomaly_map: FloatArray
    score: float
    is_defect: bool = False


def measure_accuracy(timed: Timed, data: Path, page: int | None = None) -> Record:
    """Return image and pixel ROCAUC and AUPRO over all defects of a folder in MVTec AD's layout, and what was left out.

    `page` is as for `list_labelled`.

    Raises:
        DataError: the folder has another layout, or none of its images can be used.
        MissingExtraError: scikit-learn or SciPy is not installed.
    """
    from ndp_rt.evaluate.dataset import list_samples
    from ndp_rt.evaluate.metrics import require_extras
    from ndp_rt.evaluate.run import summarise
    from ndp_rt.evaluate.score_samples import score_samples

    require_extras()
    samples = list_samples(data, page)
    scored, exclusions = score_samples(lambda image: Judged(*timed.judge(image)), samples, lambda: None)
    left_out = [one.reason for one in exclusions]
    if not scored:
        raise DataError(f"none of the images in {data / 'test'} can be used: {left_out[0]}")
    overall = summarise(scored, (), None).overall
    return {
        "image_rocauc": overall.image_rocauc,
        "pixel_rocauc": overall.pixel_rocauc,
        "aupro": overall.aupro,
        "source": f"measured: {data.resolve().name}",
        "image_count": len(scored),
        "left_out": left_out,
    }


def read_peak_memory() -> int | None:
    """Return this process's largest resident memory in bytes.

    Linux's VmHWM, which begins with the process; getrusage also counts the parent's memory before exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        peak_kib = next((line.split()[1] for line in status.read_text().splitlines() if line[:6] == "VmHWM:"), None)
        return None if peak_kib is None else int(peak_kib) * 1024
    if importlib.util.find_spec("resource") is None:  # Windows
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def answer(service: Any, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
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


def answer_requests(service: Any) -> int:
    """Answer requests for a service's methods until stdin ends, or the benchmark does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends this process
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    requests: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            name, values = pickle.load(requests)
        except EOFError:
            service.close()
            return 0
        pickle.dump(answer(service, name, values), answers)
        answers.flush()


def main(arguments: Sequence[str]) -> int:
    """Run a process in which something is timed."""
    return answer_requests(Service())
