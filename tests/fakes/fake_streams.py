"""Streams, events and graphs that run their work as late, or as early, as CUDA would be allowed to.

An operation is a node with the operations that it has to follow: the one before it in its stream, and those of the
events that its stream waited for. Nothing else orders two operations. A lazy stream runs a node only when somebody
waits for it; an eager one runs it at once, after what it has to follow. A missing wait then shows as stale or
overwritten data under some mix of lazy and eager streams, at every run: no timing is involved.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np


class CUDARuntimeError(RuntimeError):
    """As CuPy's: `status` is CUDA's number."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


# Callers may be threads, and work of two of them must not run at once: each brings what another waits for to its end.
_TURN = threading.RLock()
INVALID_VALUE, OUT_OF_MEMORY, CAPTURE_UNSUPPORTED, CAPTURE_UNJOINED = 1, 2, 900, 904


@dataclass(eq=False)
class Operation:
    """One asynchronous operation; runs once outside graphs, and once at each launch inside one."""

    run: Callable[[], None]
    follows: list[Operation] = field(default_factory=list)
    is_done: bool = False

    def complete(self) -> None:
        """Run what this has to follow, then this, if they have not run yet."""
        with _TURN:
            pending = [self]
            while pending:
                node = pending[-1]
                left = [one for one in node.follows if not one.is_done]
                if node.is_done or not left:
                    pending.pop()
                    if not node.is_done:
                        node.is_done = True
                        node.run()
                        node.follows = []
                else:
                    pending.extend(left)


def join() -> None:
    """What an event's operation does after a wait: nothing but to follow what was waited for."""


class Machine:
    """The streams of one fake GPU; `seed` decides which are eager and in what order graphs run independent nodes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.streams: dict[int, FakeStream] = {}
        self.events: weakref.WeakValueDictionary[int, FakeEvent] = weakref.WeakValueDictionary()
        self.numbers = itertools.count(0x5000)
        self.current = threading.local()  # each thread's stream
        self.operation_count = 0
        self.synchronisation_count = 0
        self.graph_launch_count = 0
        self.downloaded_bytes = 0
        self.lost: CUDARuntimeError | None = None  # a device that failed: every call raises this
        self.refuses_capture: str | None = None

    def check(self) -> None:
        """Raise what a lost device raises at every call."""
        if self.lost is not None:
            raise self.lost

    def add(self, stream_pointer: int, run: Callable[[], None]) -> None:
        """Put work on a stream that is known by its number, as engines do."""
        self.streams[stream_pointer].add(run)


class FakeStream:
    """As cupy.cuda.Stream."""

    def __init__(self, machine: Machine, *, is_eager: bool) -> None:
        self.machine = machine
        self.ptr = next(machine.numbers)
        self.is_eager = is_eager
        self.tail: Operation | None = None
        self.waits: list[Operation] = []
        self.capture: Capture | None = None
        machine.streams[self.ptr] = self

    def add(self, run: Callable[[], None]) -> None:
        """Append an operation."""
        self.machine.check()
        self.machine.operation_count += 1
        node = Operation(run, [*self.waits, *([self.tail] if self.tail is not None else [])])
        self.tail, self.waits = node, []
        if self.capture is not None:
            self.capture.nodes.append(node)
            self.capture.unjoined[self.ptr] = node
        elif self.is_eager:
            node.complete()

    def synchronize(self) -> None:
        self._refuse_in_capture("cudaStreamSynchronize")
        self.machine.check()
        self.machine.synchronisation_count += 1
        if self.tail is not None:
            self.tail.complete()
        for one in self.waits:
            one.complete()

    def use(self) -> FakeStream:
        self.machine.current.stream = self
        return self

    def record(self, event: FakeEvent | None = None) -> FakeEvent:
        event = event or FakeEvent(self.machine)
        event.record(self)
        return event

    def wait_event(self, event: FakeEvent) -> None:
        self.machine.check()
        if event.capture is not None and self.capture is None:  # waiting for a captured event joins the capture
            self.capture, self.tail = event.capture, None
            event.capture.streams.append(self)
        if self.capture is not None and event.capture is not self.capture:
            raise CUDARuntimeError(CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureIsolation: event of another capture")
        if event.node is not None:
            self.waits.append(event.node)
        if self.capture is not None and self is self.capture.origin:
            for pointer, node in list(self.capture.unjoined.items()):
                if node is event.node:
                    del self.capture.unjoined[pointer]

    def begin_capture(self, mode: int | None = None) -> None:
        if self.machine.refuses_capture:
            raise CUDARuntimeError(CAPTURE_UNSUPPORTED, self.machine.refuses_capture)
        if self.capture is not None:
            raise CUDARuntimeError(CAPTURE_UNSUPPORTED, "cudaErrorIllegalState: the stream is capturing already")
        self.capture = Capture(self)
        self.tail, self.waits = None, []

    def end_capture(self) -> FakeGraph:
        capture, self.capture = self.capture, None
        if capture is None or capture.origin is not self:
            raise CUDARuntimeError(CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureUnmatched: the stream began no capture")
        for stream in (*capture.streams, self):
            stream.capture, stream.tail, stream.waits = None, None, []
        capture.unjoined.pop(self.ptr, None)
        if capture.failure is not None:
            raise capture.failure
        if capture.unjoined:
            raise CUDARuntimeError(CAPTURE_UNJOINED, "cudaErrorStreamCaptureUnjoined: a forked stream was not joined")
        return FakeGraph(self.machine, capture.nodes)

    def _refuse_in_capture(self, call: str) -> None:
        if self.capture is not None:
            self.capture.failure = CUDARuntimeError(
                CAPTURE_UNSUPPORTED, f"cudaErrorStreamCaptureInvalidated: {call} while capturing"
            )
            raise self.capture.failure


class Capture:
    """Work that is being recorded, and the streams that take part."""

    def __init__(self, origin: FakeStream) -> None:
        self.origin = origin
        self.nodes: list[Operation] = []
        self.streams: list[FakeStream] = []
        self.unjoined: dict[int, Operation] = {}
        self.failure: CUDARuntimeError | None = None


class FakeEvent:
    """As cupy.cuda.Event."""

    def __init__(self, machine: Machine, block: bool = False, disable_timing: bool = False) -> None:
        self.machine = machine
        self.ptr = next(machine.numbers)
        machine.events[self.ptr] = self
        self.node: Operation | None = None
        self.capture: Capture | None = None
        self.disable_timing = disable_timing

    def record(self, stream: FakeStream) -> None:
        self.machine.check()
        self.capture = stream.capture
        if stream.waits:  # an event after a wait follows what was waited for
            stream.add(join)
        self.node = stream.tail

    def synchronize(self) -> None:
        self.machine.check()
        if self.capture is not None:
            raise CUDARuntimeError(CAPTURE_UNSUPPORTED, "cudaErrorCapturedEvent: the event was recorded in a capture")
        self.machine.synchronisation_count += 1
        if self.node is not None:
            self.node.complete()


class FakeGraph:
    """As cupy.cuda.Graph: at each launch, its nodes in some order that keeps what each has to follow."""

    def __init__(self, machine: Machine, nodes: Iterable[Operation]) -> None:
        self.machine = machine
        self.nodes = list(nodes)
        index = {id(node): number for number, node in enumerate(self.nodes)}
        # Work from before the capture is no part of a graph: CUDA refuses to capture a dependency on it.
        self._follows = [[index[id(one)] for one in node.follows if id(one) in index] for node in self.nodes]

    def launch(self, stream: FakeStream | None = None) -> None:
        assert stream is not None, "the pipeline launches on its own stream"
        self.machine.graph_launch_count += 1
        stream.add(self._run)

    def _run(self) -> None:
        left = set(range(len(self.nodes)))
        while left:
            ready = sorted(number for number in left if not left.intersection(self._follows[number]))
            number = int(self.machine.rng.choice(ready))
            self.nodes[number].run()
            left.remove(number)
