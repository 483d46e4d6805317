"""Requests that wait: bounded, by priority, with deadlines, in batches; none that was accepted is lost."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import EngineError
from ndp_rt.serve.queue import InspectionQueue
from ndp_rt.serve.refusals import Refusal

IMAGE = np.zeros((4, 4), np.uint8)


class GatedInspector:
    """An inspector that waits at a gate, so that a test decides what has come before it goes on."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.maps: list[bool] = []
        self.gate, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None

    def inspect(self, image: Any, *, map_out: Any) -> Any:
        return self.inspect_batch([image], maps_out=[map_out])[0]

    def inspect_batch(self, images: Sequence[Any], *, maps_out: Sequence[Any]) -> list[Any]:
        self.entered.release()
        assert self.gate.acquire(timeout=60)
        self.calls.append([int(image[0, 0]) for image in images])
        self.maps.append(maps_out[0] is None)
        if self.error is not None:
            raise self.error
        return [int(image[0, 0]) for image in images]


class Meter:
    wants_map = False

    def add_results(self, images: Sequence[Any], results: Sequence[Any], waited_s: float) -> None:
        assert waited_s >= 0 and len(images) == len(results)


@pytest.fixture
def inspector() -> GatedInspector:
    return GatedInspector()


@pytest.fixture
def queue(inspector: GatedInspector) -> Iterator[InspectionQueue]:
    made: Any = InspectionQueue(inspector, 8, Meter(), 4)  # type: ignore[arg-type]
    yield made
    inspector.gate.release(100)
    made.close()


def submit(queue: InspectionQueue, *values: int, priority: int = 0, needs_map: bool = False, left_s: float = 60) -> Any:
    queue.reserve(len(values))
    images = [np.full_like(IMAGE, value) for value in values]
    deadline_s = time.monotonic() + left_s
    return queue.submit(images, needs_map=needs_map, priority=priority, deadline_s=deadline_s)


def hold(queue: InspectionQueue, inspector: GatedInspector) -> Any:
    """Send a first request and wait until it stands at the gate: what follows waits in the queue."""
    first = submit(queue, 99)
    assert inspector.entered.acquire(timeout=60)
    return first


def test_what_waits_goes_in_together_by_priority(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    futures = [submit(queue, 1), submit(queue, 2, 3), submit(queue, 4, priority=2), submit(queue, 5, 6, priority=1)]
    inspector.gate.release(3)
    assert [one.result(60) for one in futures] == [[1], [2, 3], [4], [5, 6]]
    assert inspector.calls == [[99], [5, 6, 4, 1], [2, 3]]


def test_a_request_with_a_map_goes_in_with_its_like(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    futures = [submit(queue, 1), submit(queue, 2, needs_map=True), submit(queue, 3, needs_map=True)]
    inspector.gate.release(3)
    assert [one.result(60) for one in futures] == [[1], [2], [3]]
    assert inspector.calls == [[99], [1], [2, 3]] and inspector.maps == [False, False, True]


def test_a_full_queue_refuses_and_has_room_again(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    futures = [submit(queue, value) for value in range(8)]
    with pytest.raises(Refusal, match="8 images wait; at most 8 may") as caught:
        queue.reserve(1)
    assert caught.value.reason == "full"
    inspector.gate.release(3)
    assert [one.result(60) for one in futures] == [[value] for value in range(8)]
    queue.reserve(8)
    queue.release(8)


def test_what_comes_too_late_is_not_inspected(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    late, kept = submit(queue, 1, left_s=-1), submit(queue, 2)
    inspector.gate.release(2)
    with pytest.raises(Refusal, match="time was over"):
        late.result(60)
    assert kept.result(60) == [2] and inspector.calls == [[99], [2]]


def test_what_is_cancelled_is_not_inspected(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    gone, kept = submit(queue, 1), submit(queue, 2)
    assert gone.cancel()
    inspector.gate.release(2)
    assert kept.result(60) == [2] and inspector.calls == [[99], [2]]
    queue.reserve(8)
    queue.release(8)


def test_a_request_that_is_given_up_gives_its_room_back(queue: InspectionQueue, inspector: GatedInspector) -> None:
    hold(queue, inspector)
    gone = [submit(queue, 1, 2, 3, 4), submit(queue, 5, 6, 7, 8)]
    assert all(one.cancel() for one in gone)
    kept = submit(queue, *range(8))
    inspector.gate.release(2)
    assert kept.result(60) == [*range(8)] and inspector.calls == [[99], [*range(8)]]


def test_a_failing_engine_is_told_to_each_and_the_queue_goes_on(
    queue: InspectionQueue, inspector: GatedInspector
) -> None:
    first = hold(queue, inspector)
    futures = [submit(queue, 1), submit(queue, 2)]
    inspector.error = EngineError("the engine failed")
    inspector.gate.release(2)
    for one in (first, *futures):
        with pytest.raises(EngineError, match="the engine failed"):
            one.result(60)
    inspector.error = None
    inspector.gate.release()
    assert submit(queue, 3).result(60) == [3]


def test_closing_finishes_what_was_taken(inspector: GatedInspector) -> None:
    queue: Any = InspectionQueue(inspector, 8, Meter(), 4)  # type: ignore[arg-type]
    first = hold(queue, inspector)
    futures = [submit(queue, 1), submit(queue, 2)]
    queue.reserve(1)  # of a request that is still decoded
    closing = threading.Thread(target=queue.close, daemon=True)
    closing.start()
    while True:
        try:
            queue.reserve(1)
            queue.release(1)
        except Refusal as refusal:
            assert refusal.reason == "unavailable"
            break
    last = queue.submit([IMAGE], needs_map=False, priority=0, deadline_s=None)
    inspector.gate.release(10)
    assert [one.result(60) for one in (first, *futures, last)] == [[99], [1], [2], [0]]
    closing.join(60)
    assert not closing.is_alive()
