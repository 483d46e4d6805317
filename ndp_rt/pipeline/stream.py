"""Reads frames in a thread of its own and starts them on their way while earlier ones are finished."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from ndp_rt.errors import ClosedError, DeviceError
from ndp_rt.images.checks import Image
from ndp_rt.result import Result
from ndp_rt.runtime.executor import Batch, forked
from ndp_rt.runtime.lifetime import keep_for_ever, track
from ndp_rt.runtime.session import Session

STOP_WAIT_S = 1.0


@dataclass(eq=False)
class FrameBatch:
    """A frame on its way, in a batch of the stream's; `FrameStream.release` gives it back."""

    inner: Batch
    size_px: tuple[int, int] = (0, 0)
    kept: Image | None = None  # a copy of the frame where the device may fail without loss
    is_started: bool = False


class FrameStream:
    """Frames on their way through a session: read and started in a worker thread, finished by the caller in order."""

    def __init__(
        self,
        session: Session,
        frames: Iterable[Any],
        outputs: Sequence[str],
        use_streams: Callable[[], None],
    ) -> None:
        """Start reading, no further ahead than the executor has batches for a stream.

        Args:
            session: whose executor runs the frames.
            frames: each is started before the next is asked for, so one buffer may serve for all.
            outputs: of the program, beside the map.
            use_streams: of `Executor.share_streams`, in the thread whose frames they are.
        """
        self.session = session
        self.outputs = outputs
        self._frames, self._use_streams = frames, use_streams
        executor = session.executor
        self._batches = [FrameBatch(executor.make_batch()) for _ in range(executor.stream_batch_count)]
        self._free: SimpleQueue[FrameBatch | None] = SimpleQueue()
        self._ready: SimpleQueue[FrameBatch | BaseException | None] = SimpleQueue()
        self._is_stopping = threading.Event()
        self._is_forked = False
        for batch in self._batches:
            self._free.put(batch)
        self._worker = threading.Thread(target=self._read, name="ndp-rt frame reader", daemon=True)
        self._worker.start()
        track(self)

    def __iter__(self) -> Iterator[FrameBatch]:
        """Yield the frames in order; an exception of the source, or of starting a frame, is raised in its place."""
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def finish(self, frame: FrameBatch, *, is_current: bool) -> Result | None:
        """Return a frame's result; None where the device failed and the frame's copy is to be inspected elsewhere.

        Args:
            frame: of this stream.
            is_current: whether the stream's session still is the inspector's.
        """
        if frame.is_started and is_current:
            try:
                self.session.executor.finish(frame.inner)
                return self.session.make_result(frame.inner, 0, frame.size_px, outputs=self.outputs)
            except DeviceError:
                if frame.kept is None:
                    raise
        return None

    def release(self, frame: FrameBatch) -> None:
        """Give a frame's batch back to the reader; it must not be used after this."""
        self._free.put(frame)

    def close(self) -> None:
        """Stop reading, and give the memory back where nobody uses it any more.

        Waits for the frame that the source is about to give, at most STOP_WAIT_S.
        """
        if self._is_forked:
            return
        self._is_stopping.set()
        self._free.put(None)
        self._worker.join(STOP_WAIT_S)
        if not self._worker.is_alive():
            for batch in self._batches:
                self.session.executor.release_batch(batch.inner)

    def end(self) -> None:
        """See `ndp_rt.runtime.lifetime.Tracked`."""
        self.close()

    def abandon(self) -> None:
        """See `ndp_rt.runtime.lifetime.Tracked`."""
        keep_for_ever(self)
        self._is_forked = True
        self._ready = SimpleQueue()
        self._ready.put(forked())

    def _read(self) -> None:
        try:
            with contextlib.suppress(DeviceError):  # `start` says it of a frame, which another device may take
                self._use_streams()
            frames: Iterator[Any] = iter(self._frames)
            end: Any = object()  # anything else could be a frame
            while True:
                batch = self._free.get()  # before the next frame is asked for: this bounds what is read ahead
                if batch is None or self._is_stopping.is_set():
                    return
                frame = next(frames, end)
                if frame is end or self._is_stopping.is_set():
                    self._ready.put(None)
                    return
                self._start(batch, frame)
                self._ready.put(batch)
                del frame
        except BaseException as error:  # whatever it is, the consumer gets it; this thread has nobody to tell
            self._ready.put(error)

    def _start(self, batch: FrameBatch, image: Any) -> None:
        executor, options = self.session.executor, self.session.options
        batch.size_px = self.session.check_image(image)
        batch.kept = image.copy() if options.can_fall_back and isinstance(image, np.ndarray) else None
        batch.is_started = False
        try:
            executor.start(batch.inner, (image,), executor.batch_sizes[0], outputs=self.outputs)
            batch.is_started = True
        except (DeviceError, ClosedError):
            if batch.kept is None:
                raise
