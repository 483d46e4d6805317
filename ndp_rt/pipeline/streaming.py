"""Reads frames in a thread of its own and starts them on their way while earlier ones are finished."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

STOP_WAIT_S = 1.0
SlotT = TypeVar("SlotT")


@dataclass(frozen=True, kw_only=True, eq=False)
class StartedFrame(Generic[SlotT]):
    """A frame on its way; `FrameReader.release` gives its slot back."""

    slot: SlotT
    height_px: int
    width_px: int


class FrameReader(Generic[SlotT]):
    """Iterates over frames in a worker thread; it reads no further ahead than it has slots."""

    def __init__(
        self, frames: Iterable[Any], start: Callable[[SlotT, Any], tuple[int, int]], slots: Sequence[SlotT]
    ) -> None:
        """Start reading.

        Args:
            frames: each is started before the next is asked for, so one buffer may serve for all.
            start: checks a frame, starts it in a slot and returns its height and width; called in the worker alone.
            slots: at least two, so that one is filled while another is finished.
        """
        self._frames = frames
        self._start = start
        self._free: SimpleQueue[SlotT | None] = SimpleQueue()
        self._ready: SimpleQueue[StartedFrame[SlotT] | BaseException | None] = SimpleQueue()
        self._is_stopping = threading.Event()
        for slot in slots:
            self._free.put(slot)
        self._worker = threading.Thread(target=self._read, name="ndp-rt frame reader", daemon=True)
        self._worker.start()

    def __iter__(self) -> Iterator[StartedFrame[SlotT]]:
        """Yield the frames in order; an exception of the source or of `start` is raised in its place."""
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self, frame: StartedFrame[SlotT]) -> None:
        """Give the frame's slot back; it must not be used after this."""
        self._free.put(frame.slot)

    def stop(self) -> bool:
        """Stop reading; waits for the frame that the source is about to give, at most STOP_WAIT_S.

        Returns:
            True if the worker has ended, so that nobody uses the slots any more.
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
                slot = self._free.get()  # before the next frame is asked for: this bounds what is read ahead
                if slot is None or self._is_stopping.is_set():
                    return
                frame = next(frames, end)
                if frame is end or self._is_stopping.is_set():
                    self._ready.put(None)
                    return
                height_px, width_px = self._start(slot, frame)
                self._ready.put(StartedFrame(slot=slot, height_px=height_px, width_px=width_px))
                del frame
        except BaseException as error:  # whatever it is, the consumer gets it; this thread has nobody to tell
            self._ready.put(error)
