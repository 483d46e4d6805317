"""Watches all models' images beside the requests: measures their brightness, and draws them while a page is open."""

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

from ndp_rt.images.checks import Image
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result
from ndp_rt.serve.drift import Drift
from ndp_rt.serve.history import History
from ndp_rt.serve.pictures import draw, measure_brightness

log = logging.getLogger("ndp_rt")

OPEN_S = 10.0  # after its last question a page counts as closed
PICTURE_S = 0.2  # between two pictures of a model
PICTURE_SHARE = 10  # a picture that takes long is followed by none for that many times its time
BRIGHTNESS_S = 0.5  # between two images of a model whose brightness is measured
WAITING_COUNT = 3  # tasks that may wait, each with an image
NICENESS = 10
LEAST_SPREAD = 0.01  # of brightness, as a share of white: lamps vary by more


class Monitor:
    """The histories of all models, and the thread that draws. Any thread may call any method."""

    def __init__(self) -> None:
        """Start the thread."""
        self._histories: dict[tuple[str, str], History] = {}
        self._tasks: queue.Queue[Callable[[], None]] = queue.Queue(WAITING_COUNT)
        self._asked_s = -OPEN_S
        self._pause_s = PICTURE_S
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="ndp-rt monitor", daemon=True).start()

    def find_history(self, name: str, version: str) -> History:
        """Return a model's history, which begins with the first call."""
        with self._lock:
            return self._histories.setdefault((name, version), History())

    def note_page(self) -> None:
        """Note that a page is open."""
        self._asked_s = time.monotonic()

    @property
    def pause_s(self) -> float | None:
        """The time between two pictures of a model; None: no page is open."""
        return self._pause_s if time.monotonic() - self._asked_s < OPEN_S else None

    def offer(self, task: Callable[[], None]) -> None:
        """Do a task beside the requests; it is dropped where too many wait."""
        with contextlib.suppress(queue.Full):
            self._tasks.put_nowait(task)

    def _run(self) -> None:
        lower_priority()
        while True:
            task = self._tasks.get()
            start_s = time.perf_counter()
            try:
                task()
            except Exception:
                log.exception("an image could not be drawn")
            self._pause_s = max(PICTURE_S, PICTURE_SHARE * (time.perf_counter() - start_s))


def lower_priority() -> None:
    """Let this thread come after those of requests, where the system has priorities of threads and allows it."""
    if sys.platform == "linux":
        number = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, number, max(NICENESS, os.getpriority(os.PRIO_PROCESS, number)))


class ModelWatch:
    """Hands images of one model to the monitor, as often as it can use them; called by one thread."""

    def __init__(self, monitor: Monitor, history: History, inspector: Inspector, brightness: Drift) -> None:
        """Take where images go.

        Args:
            monitor: of the service.
            history: of the model.
            inspector: whose bundle inspects them.
            brightness: that the images' brightness is added to.
        """
        self._monitor, self._history, self.brightness = monitor, history, brightness
        self._manifest = inspector.bundle.manifest
        self._picture_s = self._defect_s = self._measured_s = float("-inf")

    @property
    def wants_map(self) -> bool:
        """Whether the next image is to have its map, for a picture."""
        pause_s = self._monitor.pause_s
        return pause_s is not None and time.monotonic() - self._picture_s >= pause_s

    def take(self, images: Sequence[Image], results: Sequence[Result], first: int, waited_s: float) -> None:
        """Take images that were inspected; `first` is the number of the first.

        In each pause one with a map is drawn, and one with a defect but no map.
        """
        now_s = time.monotonic()
        if now_s - self._measured_s >= BRIGHTNESS_S:
            self._measured_s = now_s
            self._monitor.offer(lambda: self._measure(images[0]))
        pause_s = self._monitor.pause_s
        if pause_s is None:
            return
        for index, (image, result) in enumerate(zip(images, results, strict=True)):
            if result.anomaly_map.size and now_s - self._picture_s >= pause_s:
                self._picture_s = now_s
            elif result.is_defect and now_s - self._defect_s >= pause_s:
                self._defect_s = now_s
            else:
                continue
            self._offer(first + index, image, result, waited_s)

    def _offer(self, number: int, image: Image, result: Result, waited_s: float) -> None:
        self._monitor.offer(lambda: self._history.add_picture(draw(number, image, result, waited_s, self._manifest)))

    def _measure(self, image: Image) -> None:
        self.brightness.add(measure_brightness(image, self._manifest.input.white_level_16bit))
