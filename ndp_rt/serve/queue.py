"""Requests that wait for an inspector: bounded, by priority, with deadlines; many that wait go in as one batch."""

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result
from ndp_rt.serve.refusals import Refusal

NO_MAP = np.empty((0, 0), np.float32)
MOST_BYTES = 2**30  # of images that wait
DEFAULT_PRIORITY = 100  # of requests that name none, or 0


class Meter(Protocol):
    """Is told what becomes of requests."""

    @property
    def wants_map(self) -> bool:
        """Whether an image is to have its map though its request does not ask for it."""

    def add_results(self, images: Sequence[Image], results: Sequence[Result], waited_s: float) -> None:
        """Take a request's images and results, and how long it waited; called before they are told, so it is short."""


@dataclass(order=True)
class Job:
    """Images of one request on their way; ordered by priority, then by when they came."""

    priority: int
    number: int
    images: Sequence[Image] = field(compare=False)
    needs_map: bool = field(compare=False)
    arrived_s: float = field(compare=False)
    deadline_s: float | None = field(compare=False)
    future: "Future[list[Result]]" = field(compare=False, default_factory=Future)
    is_waiting: bool = field(compare=False, default=True)
    byte_count: int = field(compare=False, default=0)


class InspectionQueue:
    """Gives requests to one inspector, in a thread of its own.

    Requests that wait together go to `Inspector.inspect_batch` together, up to as many images as it computes beside
    each other: nothing is held back to fill a batch.
    """

    def __init__(self, inspector: Inspector, limit: int, meter: Meter, batch_count: int) -> None:
        """Start the thread.

        Args:
            inspector: whose calls come from here alone; `close` leaves it open.
            limit: images that may wait, those of requests that are still decoded among them.
            meter: is told of results.
            batch_count: images that go in together at most.
        """
        self._inspector, self._limit, self._meter, self._batch_count = inspector, limit, meter, batch_count
        self._jobs: list[Job] = []
        self._numbers = itertools.count()
        self._reserved = 0  # images that wait or are decoded
        self._bytes = 0  # of those that wait
        self._is_closing = False
        self._changed = threading.Condition()  # around a lock that its holder may take again
        self._thread = threading.Thread(target=self._run, name="ndp-rt inspections", daemon=True)
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        """How many images wait or are decoded."""
        return self._reserved

    def reserve(self, image_count: int) -> None:
        """Take room for a request's images before they are decoded; `release` gives it back where no job comes of it.

        Raises:
            Refusal: there is no room, or the queue is closing.
        """
        with self._changed:
            if self._is_closing:
                raise Refusal("unavailable", "the model is being unloaded.")
            if self._reserved + image_count > self._limit:
                raise Refusal("full", f"{self._reserved} images wait; at most {self._limit} may. Try again later.")
            self._reserved += image_count

    def release(self, image_count: int) -> None:
        """Give room back."""
        with self._changed:
            self._reserved -= image_count
            self._changed.notify_all()

    def submit(
        self, images: Sequence[Image], *, needs_map: bool, priority: int, deadline_s: float | None
    ) -> "Future[list[Result]]":
        """Queue images that `reserve` has taken room for; a future that is cancelled before its turn costs nothing.

        Args:
            images: checked by `Session.check_image`.
            needs_map: whether results need their maps.
            priority: the lower the sooner; 0: DEFAULT_PRIORITY.
            deadline_s: of `time.monotonic`, after which it is not begun; None: none.

        Raises:
            Refusal: the images are too large for the memory that may be taken; the room that was reserved stays so.
        """
        byte_count = sum(image.nbytes for image in images)
        with self._changed:
            if self._bytes + byte_count > MOST_BYTES:
                raise Refusal("full", f"images of {self._bytes} bytes wait; at most {MOST_BYTES} may. Try again later.")
            self._bytes += byte_count
            job = Job(
                priority or DEFAULT_PRIORITY, next(self._numbers), images, needs_map, time.monotonic(), deadline_s
            )
            job.byte_count = byte_count
            heapq.heappush(self._jobs, job)
            self._changed.notify_all()
        job.future.add_done_callback(lambda _: self._forget(job))
        return job.future

    def _forget(self, job: Job) -> None:
        """Give back what a cancelled job takes; others have left already."""
        self._leave(job)
        if job.future.cancelled():
            job.images = ()

    def _leave(self, job: Job) -> None:
        """Give back what a job takes as long as it waits, once."""
        with self._changed:
            if job.is_waiting:
                job.is_waiting = False
                self._reserved -= len(job.images)
                self._bytes -= job.byte_count
                self._changed.notify_all()

    def close(self) -> None:
        """Take no more requests, finish those that were taken, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._take_jobs():
            try:
                self._inspect(jobs)
            except BaseException as error:  # an engine or a device that fails; each request hears of it
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _take_jobs(self) -> list[Job]:
        """Wait for jobs and return those that go in together; none: the queue is closed and empty."""
        taken: list[Job] = []
        with self._changed:
            while not taken:
                while not self._jobs:
                    if self._is_closing and not self._reserved:
                        return []
                    self._changed.wait()
                while self._jobs and (not taken or self._fits(taken)):
                    job = heapq.heappop(self._jobs)
                    self._leave(job)
                    if self._begins(job):
                        taken.append(job)
        return taken

    def _fits(self, taken: Sequence[Job]) -> bool:
        following = self._jobs[0]
        count = sum(len(job.images) for job in taken) + len(following.images)
        return count <= self._batch_count and following.needs_map == taken[0].needs_map

    def _begins(self, job: Job) -> bool:
        """Tell whether somebody still waits for a job."""
        if not job.future.set_running_or_notify_cancel():
            return False
        if job.deadline_s is not None and time.monotonic() > job.deadline_s:
            waited_ms = (time.monotonic() - job.arrived_s) * 1e3
            job.future.set_exception(Refusal("expired", f"the request's time was over after {waited_ms:.0f} ms."))
            return False
        return True

    def _inspect(self, jobs: Sequence[Job]) -> None:
        begun_s = time.monotonic()
        images = [image for job in jobs for image in job.images]
        maps_out = [None if jobs[0].needs_map else NO_MAP] * len(images)
        if self._meter.wants_map:
            maps_out[0] = None
        if len(images) == 1:
            results = [self._inspector.inspect(images[0], map_out=maps_out[0])]
        else:
            results = self._inspector.inspect_batch(images, maps_out=maps_out)
        start = 0
        for job in jobs:
            own = results[start : start + len(job.images)]
            start += len(job.images)
            self._meter.add_results(job.images, own, begun_s - job.arrived_s)
            job.future.set_result(own)
