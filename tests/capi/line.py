"""An inspector whose thread a test holds at each image, and everything that was submitted to it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.capi.library import Library

LIMIT_S = 300  # for what comes at once; a test that waits so long has failed
SIDE = 24


class Gate:
    """Holds the engine at each image until it is opened, and counts."""

    def __init__(self) -> None:
        self.is_open, self.entered, self.entered_count, self.left_count = threading.Event(), threading.Event(), 0, 0

    def pass_through(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def inspect(*arguments: Any, **options: Any) -> Any:
            self.entered_count += 1
            self.entered.set()
            assert self.is_open.wait(LIMIT_S)
            result = call(*arguments, **options)
            self.left_count += 1
            return result

        return inspect


class Line:
    """An inspector with a small queue, and everything that was submitted to it."""

    def __init__(self, library: Library, handle: Any) -> None:
        self.library, self.lib, self.ffi, self.handle = library, library.lib, library.ffi, handle
        self.ended: list[tuple[int, str, str]] = []  # user, status, message
        self.answer: Callable[[int, Any], None] = lambda user, result: None
        self.done = self.ffi.callback("ndp_rt_done_callback", self._done)
        self.kept: list[Any] = []

    def _done(self, user: Any, status: int, result: Any) -> None:
        number, name = int(self.ffi.cast("intptr_t", user)), self.library.name(status)
        self.ended.append((number, name, self.library.last_error if status else ""))
        self.answer(number, result)

    def make_result(self, **fields: Any) -> Any:
        result = self.library.make("ndp_rt_result", **fields)
        self.kept.append(result)
        return result

    def make_image(self, level: int = 100) -> Any:
        pixels = np.full((SIDE, SIDE), level % 256, np.uint8)
        self.kept.append(pixels)
        return self.library.make_image(pixels, "GREY8")

    def submit(
        self, user: int = 0, *, image: Any = None, result: Any = None, with_done: bool = True
    ) -> tuple[str, Any]:
        """Submit and return the status and the job."""
        job = self.ffi.new("ndp_rt_job **")
        image = self.make_image(user) if image is None else image
        result = self.make_result() if result is None else result
        done = self.done if with_done else self.ffi.NULL
        status = self.lib.ndp_rt_inspector_submit(self.handle, image, result, done, self.ffi.cast("void *", user), job)
        return self.library.name(status), job[0]

    def wait(self, job: Any, timeout_ms: int = LIMIT_S * 1000) -> str:
        return self.library.name(self.lib.ndp_rt_job_wait(job, timeout_ms))

    def close(self) -> str:
        return self.library.name(self.lib.ndp_rt_inspector_close(self.handle))

    def read_times(self) -> Any:
        times = self.library.make("ndp_rt_times")
        return times if self.lib.ndp_rt_timings(self.handle, times) == 0 else None

    def wait_until_closing(self) -> None:
        limit = time.monotonic() + LIMIT_S
        while self.read_times() is not None:
            assert time.monotonic() < limit
