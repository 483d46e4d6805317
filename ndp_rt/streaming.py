"""Reads and preprocesses the next frames in a thread of its own while the current one is in the engine."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

SLOT_COUNT = 2  # one in the engine, one being filled
STOP_WAIT_S = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadyFrame:
    """A preprocessed frame; `release` gives its memory back to the reader."""

    batch: FloatArray  # float32 [n, 3, h, w]; the frame comes first
    height_px: int
    width_px: int
    preprocess_ms: float


class FrameReader:
    """Iterates over frames in a worker thread; at most SLOT_COUNT frames are read ahead of the consumer."""

    def __init__(
        self,
        frames: Iterable[Any],
        preprocess: Callable[[Any, FloatArray], None],
        batch_size: int,
        height_px: int,
        width_px: int,
    ) -> None:
        """Start reading.

        Args:
            frames: each is preprocessed before the next is asked for, so one buffer may serve for all.
            preprocess: fills float32 [3, h, w]; called in the worker alone.
            batch_size: of the engine that will run; a frame fills the first place, the others stay zero.
            height_px: of the network's input.
            width_px: of the network's input.
        """
        self._frames = frames
        self._preprocess = preprocess
        self._free: SimpleQueue[FloatArray | None] = SimpleQueue()
        self._ready: SimpleQueue[ReadyFrame | BaseException | None] = SimpleQueue()
        self._is_stopping = threading.Event()
        for _ in range(SLOT_COUNT):
            self._free.put(np.zeros((batch_size, 3, height_px, width_px), np.float32))
        self._worker = threading.Thread(target=self._read, name="ndp-rt frame reader", daemon=True)
        self._worker.start()

    def __iter__(self) -> Iterator[ReadyFrame]:
        """Yield the frames in order; an exception of the source or of the preprocessing is raised in its place."""
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self, frame: ReadyFrame) -> None:
        """Give the frame's memory back; `frame.batch` must not be used after this."""
        self._free.put(frame.batch)

    def stop(self) -> None:
        """Stop reading; waits for the frame that the source is about to give, at most STOP_WAIT_S."""
        self._is_stopping.set()
        self._free.put(None)
        self._worker.join(STOP_WAIT_S)

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
                start = time.perf_counter()
                self._preprocess(frame, batch[0])
                elapsed_ms = (time.perf_counter() - start) * 1e3
                height_px, width_px = frame.shape[:2]
                self._ready.put(
                    ReadyFrame(batch=batch, height_px=height_px, width_px=width_px, preprocess_ms=elapsed_ms)
                )
                del frame
        except BaseException as error:  # whatever it is, the consumer gets it; this thread has nobody to tell
            self._ready.put(error)
