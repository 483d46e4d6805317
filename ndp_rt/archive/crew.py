"""Runs jobs on several workers, each a process here or an actor elsewhere, of which any may die at any time."""

import platform
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from ndp_rt.archive.starting import holding_interrupts
from ndp_rt.errors import HostError, NdpRtError
from ndp_rt.inspector import Inspector

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)

MOST_DEATHS = 3  # of workers at one job, before it is cut in two, or while they open
PATIENCE_S = 60.0  # before it is said that no worker has opened
MOST_DEATHS_IN_ROW = 60  # of each seat, without a job that was done: more than it takes to find the one deadly image


def find_version() -> str:
    """Return the version of ndp-rt that runs."""
    return str(sys.modules["ndp_rt"].__version__)  # importing it would point up the ladder


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker does at a time.

    Attributes:
        shard: jobs of one shard run one after another.
        items: paths, or what else the task takes.
        death_count: workers that died at it.
        is_deadly: its only item is to be recorded as what workers die of, and is looked at no more.
    """

    shard: int
    items: tuple[Any, ...]
    death_count: int = 0
    is_deadly: bool = False


class Task(Protocol[Answer_co]):
    """What workers are for; is pickled."""

    def open(self) -> Inspector:
        """Check the worker's machine and open an inspector there.

        Raises:
            NdpRtError: this machine cannot do it.
        """

    def work(self, inspector: Inspector, job: Job) -> Answer_co:
        """Do a job, perhaps not for the first time.

        Raises:
            NdpRtError: it cannot be done by any worker, as where a disk is full.
        """


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a worker says when it has opened.

    Attributes:
        machine: its name.
        engine_hash: see `Inspector`.
    """

    machine: str
    engine_hash: str


class Worker(Generic[Answer]):
    """Runs in the worker's process."""

    def __init__(self, task: Task[Answer], version: str) -> None:
        """Take the task, and the version of ndp-rt where it comes from."""
        self._task, self._version = task, version
        self._inspector: Inspector | None = None

    def open(self) -> Ready:
        """Open the inspector.

        Raises:
            NdpRtError: as `Task.open`; HostError: this ndp-rt is another version.
        """
        machine = platform.node()
        if self._version != (here := find_version()):
            raise HostError(f"{machine}: expected ndp-rt {self._version}, as where the run began, got {here}.")
        self._inspector = self._task.open()
        return Ready(machine=machine, engine_hash=self._inspector.engine_hash)

    def work(self, job: Job) -> Answer:
        """Do a job; see `Task.work`."""
        assert self._inspector is not None  # `open` came first
        return self._task.work(self._inspector, job)


class Seat(Protocol):
    """A place that one worker after another takes; the first is started with it."""

    def open(self) -> "Future[Ready]":
        """Let the worker open."""

    def work(self, job: Job) -> "Future[Any]":
        """Let the worker do a job."""

    def restart(self) -> None:
        """Start another worker in place of one that died."""

    def close(self) -> None:
        """End the worker, whatever it is doing."""

    def is_death(self, error: BaseException) -> bool:
        """Tell whether an error says that the worker died."""

    def unwrap(self, error: BaseException) -> BaseException:
        """Return what was raised in the worker."""


class Crew:
    """Seats, and the jobs that their workers are doing: one each, so that nothing piles up."""

    def __init__(self, seats: list[Seat], accept: Callable[[Ready], None], tell: Callable[[str], None]) -> None:
        """Take the seats.

        Args:
            seats: one for each worker.
            accept: refuses a worker that is ready by an NdpRtError.
            tell: shows a line.
        """
        self._accept, self._tell = accept, tell
        self._seats = seats
        self._doing: dict[Future[Any], tuple[Seat, Job | None]] = {}  # None: the worker opens
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()  # `wait` of the futures leaves them locked on Ctrl-C
        self._idle: list[Seat] = []
        self._deaths: dict[int, int] = {}  # of workers that were opening, in a row, by seat
        self._again: deque[Job] = deque()
        self._refused: NdpRtError | None = None
        self._deaths_in_row = 0
        self._has_begun = False

    def run(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Any], None, None]:
        """Yield jobs that are done with their answers, in any order; those cut in two come as their parts.

        Closing it ends the workers.

        Raises:
            NdpRtError: a job cannot be done, or no worker can open.
        """
        source = iter(jobs)
        try:
            for seat in self._seats:
                self._start(seat, None)
            while self._hand_out(source):
                try:
                    future = self._ended.get(timeout=None if self._has_begun else PATIENCE_S)
                except Empty:
                    self._tell(f"no worker has opened in {PATIENCE_S:.0f} s; still waiting for room or an engine")
                    continue
                finally:
                    self._has_begun = True  # it is said once
                seat, job = self._doing.pop(future)
                error = future.exception()
                if error is None and job is not None:
                    self._idle.append(seat)
                    self._deaths_in_row = self._deaths_in_row if job.is_deadly else 0
                    yield job, future.result()
                elif error is None:
                    self._welcome(seat, future.result())
                else:
                    self._mend(seat, job, error)
        finally:
            with holding_interrupts():
                for seat in self._seats:
                    seat.close()

    def _start(self, seat: Seat, job: Job | None) -> None:
        """Let a worker open, or do a job."""
        with holding_interrupts():
            future = seat.open() if job is None else seat.work(job)
            self._doing[future] = seat, job
            future.add_done_callback(self._ended.put)

    def _hand_out(self, source: Iterator[Job]) -> bool:
        """Give jobs to idle workers; tell whether anything is still to be done."""
        while self._idle and (job := self._take(source)) is not None:
            self._start(self._idle.pop(), job)
        if any(job is not None for _, job in self._doing.values()) or self._again:
            return True
        return not self._idle and bool(self._doing)  # workers open, for jobs that nobody has asked for yet

    def _take(self, source: Iterator[Job]) -> Job | None:
        """Return a job whose shard nobody works at."""
        busy = {job.shard for _, job in self._doing.values() if job is not None}
        for job in self._again:
            if job.shard not in busy:
                self._again.remove(job)
                return job
        return next(source, None)

    def _welcome(self, seat: Seat, ready: Ready) -> None:
        """Take a worker that has opened, or refuse it."""
        self._deaths.pop(id(seat), None)
        try:
            self._accept(ready)
        except NdpRtError as error:
            self._dismiss(seat, error)
        else:
            self._idle.append(seat)

    def _mend(self, seat: Seat, job: Job | None, error: BaseException) -> None:
        """Go on after a worker died, or raise what it raised."""
        if not seat.is_death(error):
            raised = seat.unwrap(error)
            if job is None and isinstance(raised, NdpRtError):
                self._dismiss(seat, raised)
                return
            raise raised
        self._deaths_in_row += 1
        if self._deaths_in_row > MOST_DEATHS_IN_ROW * len(self._seats):
            raise HostError(
                f"workers: expected some that live, got {self._deaths_in_row} that died one after another, the last at "
                f"{job.items[0] if job else 'opening'}. Is there enough memory for so many? Try fewer (--workers)."
            )
        if job is not None:
            self._again += list(list_parts_of(replace(job, death_count=job.death_count + 1)))
            self._tell(f"a worker died; {len(job.items)} images are inspected again")
        else:
            count = self._deaths[id(seat)] = self._deaths.get(id(seat), 0) + 1
            if count >= MOST_DEATHS:
                self._dismiss(seat, self._explain(count, error))
                return
        seat.restart()
        self._start(seat, None)

    def _explain(self, count: int, error: BaseException) -> HostError:
        return HostError(
            f"workers: expected processes that open the bundle, got {count} that died meanwhile, one after another "
            f"({error}). Is there enough memory for so many? Try fewer (--workers)."
        )

    def _dismiss(self, seat: Seat, error: NdpRtError) -> None:
        """Go on without a worker; raise the error where none is left."""
        with suppress(ValueError):
            self._seats.remove(seat)
        seat.close()
        if not self._seats:
            raise error
        if str(error) != str(self._refused):
            self._tell(f"going on without a worker: {error}")
        self._refused = error


def list_parts_of(job: Job) -> Iterator[Job]:
    """Yield what becomes of a job that a worker died at: the same again, its halves, or its item as a deadly one."""
    if job.death_count < MOST_DEATHS:
        yield job
    elif len(job.items) == 1:
        yield replace(job, is_deadly=True, death_count=0)
    else:
        middle = len(job.items) // 2
        for items in (job.items[:middle], job.items[middle:]):
            yield Job(shard=job.shard, items=items)
