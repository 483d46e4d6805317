"""Reads frames in a thread of its own and starts them on their way while earlier ones are finished."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from ndp_rt.errors import ClosedError, DeviceError
from ndp_rt.images.checks import Image
from ndp_rt.result import Result
from ndp_rt.runtime.executor import Batch
from ndp_rt.runtime.session import Session

STOP_WAIT_S = 1.0
BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True, eq=False)
class StartedFrame(Generic[BatchT]):
    """A frame on its way; `FrameReader.release` gives its batch back."""

    batch: BatchT
    height_px: int
    width_px: int


class FrameReader(Generic[BatchT]):
    """Iterates over frames in a worker thread; it reads no further ahead than it has batches."""

    def __init__(
        self, frames: Iterable[Any], start: Callable[[BatchT, Any], tuple[int, int]], batches: Sequence[BatchT]
    ) -> None:
        """Start reading.

        Args:
            frames: each is started before the next is asked for, so one buffer may serve for all.
            start: checks a frame, starts it in a batch and returns its height and width; called in the worker alone.
            batches: at least two, so that one is filled while another is finished.
        """
        self._frames = frames
        self._start = start
        self._free: SimpleQueue[BatchT | None] = SimpleQueue()
        self._ready: SimpleQueue[StartedFrame[BatchT] | BaseException | None] = SimpleQueue()
        self._is_stopping = threading.Event()
        for batch in batches:
            self._free.put(batch)
        self._worker = threading.Thread(target=self._read, name="ndp-rt frame reader", daemon=True)
        self._worker.start()

    def __iter__(self) -> Iterator[StartedFrame[BatchT]]:
        """Yield the frames in order; an exception of the source or of `start` is raised in its place."""
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self, frame: StartedFrame[BatchT]) -> None:
        """Give the frame's batch back; it must not be used after this."""
        self._free.put(frame.batch)

    def stop(self) -> bool:
        """Stop reading; waits for the frame that the source is about to give, at most STOP_WAIT_S.

        Returns:
            True if the worker has ended, so that nobody uses the batches any more.
        """
        self._is_stopping.set()
        self._free.put(None)
        self._worker.join(STOP_WAIT_S)
        return not self._worker.is_alive()

    def _read(self) -> None:
        try:
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
                height_px, width_px = self._start(batch, frame)
                self._ready.put(StartedFrame(batch=batch, height_px=height_px, width_px=width_px))
                del frame
        except BaseException as error:  # whatever it is, the consumer gets it; this thread has nobody to tell
            self._ready.put(error)


@dataclass(eq=False)
class FrameBatch:
    """A batch of a stream; `kept` is a copy of its frame where the device may fail without loss."""

    inner: Batch
    kept: Image | None = None
    is_started: bool = False


class FrameStream:
    """Frames on their way through a session: started in the reader's thread, finished by the caller in order."""

    def __init__(self, session: Session, frames: Iterable[Any], outputs: Sequence[str]) -> None:
        """Start reading."""
        self.session = session
        self.outputs = outputs
        executor = session.executor
        self._batches = [FrameBatch(executor.make_batch()) for _ in range(executor.stream_batch_count)]
        self._reader = FrameReader(frames, self._start, self._batches)

    def __iter__(self) -> Iterator[StartedFrame[FrameBatch]]:
        return iter(self._reader)

    def finish(self, frame: StartedFrame[FrameBatch], *, is_current: bool) -> Result | None:
        """Return a frame's result; None where the device failed and the frame's copy is to be inspected elsewhere.

        Args:
            frame: of this stream.
            is_current: whether the stream's session still is the inspector's.
        """
        batch = frame.batch
        if batch.is_started and is_current:
            try:
                self.session.executor.finish(batch.inner)
                size_px = frame.height_px, frame.width_px
                return self.session.make_result(batch.inner, 0, size_px, outputs=self.outputs)
            except DeviceError:
                if batch.kept is None:
                    raise
        return None

    def release(self, frame: StartedFrame[FrameBatch]) -> None:
        """Give the frame's batch back to the reader."""
        self._reader.release(frame)

    def close(self) -> None:
        """Stop reading, and give the memory back where nobody uses it any more."""
        if self._reader.stop():
            for batch in self._batches:
                self.session.executor.release_batch(batch.inner)

    def _start(self, batch: FrameBatch, image: Any) -> tuple[int, int]:
        executor, options = self.session.executor, self.session.options
        size_px = executor.check_image(image)
        batch.kept = image.copy() if options.can_fall_back and isinstance(image, np.ndarray) else None
        batch.is_started = False
        try:
            executor.start(batch.inner, (image,), executor.batch_sizes[0], outputs=self.outputs)
            batch.is_started = True
        except (DeviceError, ClosedError):
            if batch.kept is None:
                raise
        return size_px
