"""Images that are submitted: order, room, waiting, closing, and what a callback may do."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.capi.library import Library
from tests.capi.line import LIMIT_S, Gate, Line


def test_images_are_inspected_in_order_and_each_callback_comes_once(line: Line) -> None:
    jobs, statuses = [], []
    for number in range(40):
        while (submitted := line.submit(number))[0] == "QUEUE_FULL":
            statuses.append(line.wait(jobs.pop(0)))
        assert submitted[0] == "OK"
        jobs.append(submitted[1])
    statuses += [line.wait(job) for job in jobs]
    assert statuses == ["OK"] * 40
    assert line.ended == [(number, "OK", "") for number in range(40)]
    assert line.read_times().inspection_count == 40 and line.read_times().failure_count == 0


def test_submit_returns_while_the_engine_runs_until_the_queue_is_full(line: Line, gate: Gate) -> None:
    jobs = [line.submit(0)]
    assert gate.entered.wait(LIMIT_S)  # so that it waits no longer
    jobs += [line.submit(number) for number in range(1, 5)]
    assert [status for status, _ in jobs] == ["OK"] * 5
    result = line.make_result()
    before = bytes(line.ffi.buffer(result))
    assert line.submit(5, result=result) == ("QUEUE_FULL", line.ffi.NULL)
    assert "capacity of 4 images, got as many" in line.library.last_error and bytes(line.ffi.buffer(result)) == before
    assert (gate.entered_count, gate.left_count, line.ended) == (1, 0, [])  # all that, and no image was ready yet
    assert line.read_times().waiting_count == 4
    gate.is_open.set()
    assert [line.wait(job) for _, job in jobs] == ["OK"] * 5
    assert line.submit(6, result=result)[0] == "OK"
    assert line.close() == "OK" and [user for user, _, _ in line.ended] == [0, 1, 2, 3, 4, 6]


def test_a_wait_that_times_out_may_be_repeated_and_one_that_ends_may_not(line: Line, gate: Gate) -> None:
    job = line.submit()[1]
    assert [line.wait(job, timeout_ms) for timeout_ms in (0, 1, 20)] == ["TIMEOUT"] * 3
    assert "after 20 ms; wait again" in line.library.last_error
    gate.is_open.set()
    assert line.wait(job, -1) == "OK"
    assert line.wait(job, 0) == "CLOSED"


def begin_wait(line: Line, others: ThreadPoolExecutor, job: Any) -> Future[str]:
    """Wait for a job in another thread, and return once it does."""

    def wait() -> str:
        while (status := line.wait(job, -1)) == "BUSY":  # where this thread was just looking
            pass
        return status

    waiting, limit = others.submit(wait), time.monotonic() + LIMIT_S
    while line.wait(job, 0) != "BUSY":
        assert time.monotonic() < limit
    return waiting


def test_one_thread_waits_for_a_job_the_next_is_refused(line: Line, gate: Gate, others: ThreadPoolExecutor) -> None:
    job = line.submit()[1]
    waiting = begin_wait(line, others, job)
    assert line.wait(job, -1) == "BUSY" and "another thread waits for this job" in line.library.last_error
    gate.is_open.set()
    assert waiting.result(LIMIT_S) == "OK"


def test_close_cancels_what_waits_and_calls_back(line: Line, gate: Gate, others: ThreadPoolExecutor) -> None:
    jobs = [line.submit(number)[1] for number in range(4)]
    assert gate.entered.wait(LIMIT_S)
    waiting = [others.submit(line.wait, job, -1) for job in jobs[2:]]
    closing = others.submit(line.close)
    line.wait_until_closing()
    assert line.submit(9)[0] == "CLOSED" and not closing.done()
    gate.is_open.set()
    assert closing.result(LIMIT_S) == "OK"
    assert [user for user, _, _ in line.ended] == [0, 1, 2, 3]
    assert [status for _, status, _ in line.ended] == ["OK", *["CANCELLED"] * 3]
    assert all("closed before the image's turn" in message for _, status, message in line.ended if status != "OK")
    # Whoever was waiting by then is told; whoever came later finds the handle gone.
    assert {future.result(LIMIT_S) for future in waiting} <= {"CANCELLED", "CLOSED"}
    assert [line.wait(job, -1) for job in jobs] == ["CLOSED"] * 4
    assert gate.entered_count == 1


def test_a_wait_that_has_begun_is_told_of_the_close(line: Line, gate: Gate, others: ThreadPoolExecutor) -> None:
    line.submit(0)
    assert gate.entered.wait(LIMIT_S)
    waiting = begin_wait(line, others, line.submit(1)[1])
    closing = others.submit(line.close)
    line.wait_until_closing()
    gate.is_open.set()
    assert (waiting.result(LIMIT_S), closing.result(LIMIT_S)) == ("CANCELLED", "OK")


def test_a_callback_may_submit_the_same_image_and_result_again(line: Line) -> None:
    image, result, finished = line.make_image(), line.make_result(), threading.Event()
    statuses = []

    def answer(user: int, ended: Any) -> None:
        if user < 30 and ended == result:
            statuses.append(line.submit(user + 1, image=image, result=ended)[0])
        else:
            finished.set()

    line.answer = answer
    assert line.submit(1, image=image, result=result)[0] == "OK"
    assert finished.wait(LIMIT_S)
    assert [user for user, _, _ in line.ended] == list(range(1, 31)) and statuses == ["OK"] * 29


def test_what_a_callback_may_not_do_is_refused_and_the_rest_works(
    line: Line, library: Library, tiny_bundle: Path
) -> None:
    other, found = Line(library, library.open(tiny_bundle, threads=1)), []
    own_job = [line.ffi.NULL]
    submitted = threading.Event()

    def answer(user: int, result: Any) -> None:
        submitted.wait(LIMIT_S)
        found.extend([line.close(), line.wait(own_job[0], -1), line.wait(own_job[0], 0)])
        found.append(library.name(line.lib.ndp_rt_inspector_set_threshold(line.handle, 0.25)))
        found.append(
            library.name(line.lib.ndp_rt_inspector_inspect(line.handle, line.make_image(), line.make_result()))
        )
        status, job = other.submit(with_done=False)
        found.extend([status, other.wait(job), other.close()])

    line.answer = answer
    own_job[0] = line.submit()[1]
    submitted.set()
    assert line.wait(own_job[0]) == "OK"
    assert found == ["BUSY", "BUSY", "BUSY", *["OK"] * 5]


def test_one_result_belongs_to_one_job_at_a_time(line: Line, gate: Gate) -> None:
    result = line.make_result()
    first = line.submit(1, result=result)[1]
    assert gate.entered.wait(LIMIT_S)
    assert line.submit(2, result=result)[0] == "BUSY"  # runs
    second = line.make_result()
    job = line.submit(3, result=second)[1]
    assert line.submit(4, result=second)[0] == "BUSY"  # waits
    assert "one of its own" in line.library.last_error
    gate.is_open.set()
    assert [line.wait(first), line.wait(job)] == ["OK", "OK"]
    assert line.submit(5, result=result)[0] == line.submit(6, result=second)[0] == "OK"


def test_of_two_closes_at_once_one_closes(line: Line, gate: Gate, others: ThreadPoolExecutor) -> None:
    line.submit()
    assert gate.entered.wait(LIMIT_S)
    closing = [others.submit(line.close) for _ in range(4)]
    line.wait_until_closing()
    gate.is_open.set()
    assert sorted(one.result(LIMIT_S) for one in closing) == ["CLOSED", "CLOSED", "CLOSED", "OK"]


def test_close_waits_for_the_calls_of_other_threads(line: Line, gate: Gate, others: ThreadPoolExecutor) -> None:
    def inspect() -> str:
        return line.library.name(line.lib.ndp_rt_inspector_inspect(line.handle, line.make_image(), line.make_result()))

    first = others.submit(inspect)
    assert gate.entered.wait(LIMIT_S)
    closing = others.submit(line.close)
    line.wait_until_closing()
    assert inspect() == "CLOSED" and not closing.done() and not first.done()
    gate.is_open.set()
    assert (first.result(LIMIT_S), closing.result(LIMIT_S), gate.entered_count) == ("OK", "OK", 1)


def test_queue_ms_is_the_time_before_the_turn(line: Line, gate: Gate) -> None:
    line.submit()
    assert gate.entered.wait(LIMIT_S)
    result, before = line.make_result(), time.monotonic()
    job = line.submit(result=result)[1]
    assert line.wait(job, 30) == "TIMEOUT"
    at_least_ms = 30
    gate.is_open.set()
    assert line.wait(job) == "OK"
    assert at_least_ms <= result.queue_ms <= (time.monotonic() - before) * 1e3
    assert result.total_ms > 0 and line.read_times().queue_ms == result.queue_ms
    assert line.lib.ndp_rt_inspector_inspect(line.handle, line.make_image(), result) == 0 and result.queue_ms == 0


def test_a_failing_job_says_why_to_callback_and_waiter(line: Line) -> None:
    image = line.make_image()
    image.memory = line.lib.NDP_RT_MEMORY_CUDA
    job = line.submit(7, image=image)[1]
    assert line.wait(job) == "INPUT" and "NDP_RT_MEMORY_CUDA" in line.library.last_error
    assert line.ended == [(7, "INPUT", line.library.last_error)]
    assert line.read_times().failure_count == 1


@pytest.mark.nightly
def test_thousands_of_jobs_and_jobs_nobody_waits_for_take_no_more_handles(
    line: Line, library: Library, tiny_bundle: Path
) -> None:
    def to_index(job: Any) -> int:
        return (int(line.ffi.cast("uintptr_t", job)) & 0xFFFFFFFF) >> 4

    image, results = line.make_image(), [line.make_result() for _ in range(60)]
    highest = 0
    for _ in range(1500):
        status, job = line.submit(image=image, result=results[0], with_done=False)
        assert (status, line.wait(job)) == ("OK", "OK")
        highest = max(highest, to_index(job))
    wide = [Line(library, library.open(tiny_bundle, threads=1, queue_capacity=60)) for _ in range(2)]
    found = []
    for one in wide:
        jobs = [one.submit(image=image, result=result, with_done=False) for result in results]
        assert [status for status, _ in jobs] == ["OK"] * 60
        found.append(max(to_index(job) for _, job in jobs))
        assert one.close() == "OK"
    assert highest < 20 and found[1] <= found[0] + 1, (highest, found)
