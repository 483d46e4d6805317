"""Submitted images that are not inspected: cancelled, too late, or dropped for a newer one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.capi.library import Library
from tests.capi.line import LIMIT_S, Gate, Line

MS_AFTER_DEADLINE = 20
LATE_MS, FAR_MS = 1, 2**32 - 1


@pytest.fixture
def newest_line(library: Library, tiny_bundle: Path) -> Iterator[Line]:
    """A line with room for two images, of which the newest win."""
    flags = library.lib.NDP_RT_OPEN_NEWEST_WINS
    made = Line(library, library.open(tiny_bundle, threads=1, queue_capacity=2, flags=flags))
    yield made
    library.lib.ndp_rt_inspector_close(made.handle)


def hold(line: Line, gate: Gate) -> Any:
    """Submit image 0, which the engine then holds, and return its job."""
    job = line.submit(0)[1]
    assert gate.entered.wait(LIMIT_S)
    return job


def cancel(line: Line, result: Any = None) -> str:
    given = line.ffi.NULL if result is None else result
    return line.library.name(line.lib.ndp_rt_inspector_cancel(line.handle, given))


def read_counts(line: Line) -> tuple[int, ...]:
    """Return how many images wait, were inspected, expired, were cancelled and were dropped."""
    times = line.read_times()
    names = ("waiting", "inspection", "expired", "cancelled", "dropped")
    return tuple(getattr(times, f"{name}_count") for name in names)


def test_a_full_queue_drops_its_oldest_image_where_the_newest_wins(newest_line: Line, gate: Gate) -> None:
    line = newest_line
    jobs, results = [hold(line, gate)], [line.make_result() for _ in range(4)]
    before = bytes(line.ffi.buffer(results[0]))
    for number in range(1, 5):
        status, job = line.submit(number, result=results[number - 1])
        assert status == "OK"
        jobs.append(job)
    assert read_counts(line) == (2, 0, 0, 0, 2) and line.ended == []
    # A dropped image's result stays its own until it is called back; what is refused drops nothing.
    assert line.submit(9, result=results[0])[0] == line.submit(9, result=results[3])[0] == "BUSY"
    assert read_counts(line) == (2, 0, 0, 0, 2)
    gate.is_open.set()
    assert [line.wait(job) for job in jobs] == ["OK", "DROPPED", "DROPPED", "OK", "OK"]
    assert [(user, status) for user, status, _ in line.ended] == [
        *((0, "OK"), (1, "DROPPED"), (2, "DROPPED"), (3, "OK"), (4, "OK"))
    ]
    assert all("a newer image took the place" in message for _, status, message in line.ended if status != "OK")
    assert gate.entered_count == 3 and bytes(line.ffi.buffer(results[0])) == before
    assert read_counts(line) == (0, 3, 0, 0, 2) and line.read_times().failure_count == 0
    assert line.submit(5, result=results[0])[0] == "OK"


def test_a_dropped_image_is_called_back_before_those_that_wait(newest_line: Line, gate: Gate) -> None:
    line = newest_line
    hold(line, gate)
    submitted = []
    # From the callback of image 0: 1 and 2 wait, 3 drops 1; then 4 drops 2 while 1 is called back.
    line.answer = lambda user, result: submitted.append(line.submit(4 if user == 1 else 3)[0]) if user < 2 else None
    last = [line.submit(number)[1] for number in (1, 2)]
    gate.is_open.set()
    assert [line.wait(job) for job in last] == ["DROPPED", "DROPPED"]
    assert line.close() == "OK" and submitted == ["OK", "OK"]
    assert [user for user, _, _ in line.ended] == [0, 1, 2, 3, 4]


def test_an_image_that_waits_is_cancelled_by_its_result(line: Line, gate: Gate) -> None:
    jobs, results = [hold(line, gate)], [line.make_result() for _ in range(4)]
    jobs += [line.submit(number, result=results[number])[1] for number in (1, 2, 3)]
    before = bytes(line.ffi.buffer(results[2]))
    assert cancel(line, results[0]) == "BUSY"  # none was submitted with it
    assert cancel(line, results[2]) == "OK"
    assert cancel(line, results[2]) == "BUSY" and "was cancelled before" in line.library.last_error
    assert line.submit(4, result=results[2])[0] == "BUSY"  # not called back yet
    assert read_counts(line) == (2, 0, 0, 1, 0) and line.wait(jobs[2], 0) == "TIMEOUT"
    assert cancel(line, results[3]) == "OK"  # the last one: the next comes behind the first again
    jobs.append(line.submit(4)[1])
    gate.is_open.set()
    assert [line.wait(job) for job in jobs] == ["OK", "OK", "CANCELLED", "CANCELLED", "OK"]
    assert [user for user, _, _ in line.ended] == [0, 2, 3, 1, 4]
    assert all("cancelled before its turn" in message for _, status, message in line.ended if status != "OK")
    assert gate.entered_count == 3 and bytes(line.ffi.buffer(results[2])) == before
    assert cancel(line, results[1]) == "BUSY" and read_counts(line) == (0, 3, 0, 2, 0)


def test_an_image_whose_turn_has_come_is_not_cancelled(line: Line, gate: Gate) -> None:
    result = line.make_result()
    job = line.submit(result=result)[1]
    assert gate.entered.wait(LIMIT_S)
    assert cancel(line, result) == "BUSY" and "the inspector has taken it" in line.library.last_error
    assert cancel(line) == "OK"
    gate.is_open.set()
    assert line.wait(job) == "OK" and read_counts(line) == (0, 1, 0, 0, 0)


def test_a_callback_may_cancel_all_that_wait(line: Line, gate: Gate) -> None:
    jobs, found = [hold(line, gate)], []
    jobs += [line.submit(number)[1] for number in (1, 2, 3)]
    line.answer = lambda user, result: found.append((cancel(line), read_counts(line)))
    gate.is_open.set()
    assert [line.wait(job) for job in jobs] == ["OK", *["CANCELLED"] * 3]
    assert found == [("OK", (0, 1, 0, 3, 0))] * 4 and gate.entered_count == 1


def test_an_image_whose_turn_comes_after_its_deadline_is_not_inspected(line: Line, gate: Gate) -> None:
    images = [line.make_image(number) for number in range(4)]
    images[1].deadline_ms, images[2].deadline_ms = LATE_MS, FAR_MS
    result = line.make_result()
    before = bytes(line.ffi.buffer(result))
    jobs = [hold(line, gate), line.submit(1, image=images[1], result=result)[1]]
    jobs += [line.submit(number, image=images[number])[1] for number in (2, 3)]
    assert line.wait(jobs[1], MS_AFTER_DEADLINE) == "TIMEOUT"
    gate.is_open.set()
    assert [line.wait(job) for job in jobs] == ["OK", "EXPIRED", "OK", "OK"]
    assert [user for user, _, _ in line.ended] == [0, 1, 2, 3]
    assert f"turn within {LATE_MS} ms of its submission, got it after " in line.ended[1][2]
    assert gate.entered_count == 3 and bytes(line.ffi.buffer(result)) == before
    assert read_counts(line) == (0, 3, 1, 0, 0) and line.read_times().failure_count == 0


def test_calls_of_other_threads_that_come_first_count_for_the_deadline(
    line: Line, gate: Gate, others: ThreadPoolExecutor
) -> None:
    image, result = line.make_image(), line.make_result()
    first = others.submit(line.lib.ndp_rt_inspector_inspect, line.handle, line.make_image(), result)
    assert gate.entered.wait(LIMIT_S)
    image.deadline_ms = LATE_MS
    job = line.submit(1, image=image)[1]
    assert line.wait(job, MS_AFTER_DEADLINE) == "TIMEOUT" and read_counts(line)[0] in (0, 1)
    gate.is_open.set()
    assert (first.result(LIMIT_S), line.wait(job), gate.entered_count) == (0, "EXPIRED", 1)


def test_close_calls_back_what_was_dropped_and_what_waits(
    newest_line: Line, gate: Gate, others: ThreadPoolExecutor
) -> None:
    line = newest_line
    hold(line, gate)
    assert [line.submit(number)[0] for number in (1, 2, 3)] == ["OK"] * 3
    closing = others.submit(line.close)
    line.wait_until_closing()
    assert cancel(line) == "CLOSED"
    gate.is_open.set()
    assert closing.result(LIMIT_S) == "OK"
    assert [(user, status) for user, status, _ in line.ended] == [
        *((0, "OK"), (1, "DROPPED"), (2, "CANCELLED"), (3, "CANCELLED"))
    ]


def test_a_host_with_the_header_of_abi_1_1_gets_the_times_that_it_knows(line: Line) -> None:
    times = line.library.make("ndp_rt_times", expired_count=7, cancelled_count=8, dropped_count=9)
    times.struct_size = line.ffi.offsetof("ndp_rt_times", "expired_count")
    assert times.struct_size == 64
    assert line.wait(line.submit()[1]) == "OK"
    assert line.lib.ndp_rt_timings(line.handle, times) == 0
    assert (times.inspection_count, times.expired_count, times.cancelled_count, times.dropped_count) == (1, 7, 8, 9)
    assert times.struct_size == 64 and times.total_ms > 0
