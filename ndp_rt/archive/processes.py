"""Workers as processes of this machine."""

import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from ndp_rt.archive.crew import Job, Ready, Task, Worker, find_version
from ndp_rt.archive.starting import leaving_working_directory
from ndp_rt.config import is_frozen
from ndp_rt.errors import HostError

_workers: list[Worker[Any]] = []  # of this process, if it is one


def check_processes() -> None:
    """Check that processes of our own can be started.

    Raises:
        HostError: a program that is no Python runs this; it would start itself.
    """
    if is_frozen():
        raise HostError("--workers: expected ndp-rt to run in a Python, got a frozen program. Leave it out.")


class ProcessSeat:
    """A process, in an executor of its own: when a process of an executor dies, all its jobs are lost."""

    def __init__(self, task: Task[Any]) -> None:
        """Prepare the process; `open` starts it."""
        self._task = task
        self._processes: list[BaseProcess] = []
        self.restart()

    def restart(self) -> None:
        """See `Seat`."""
        with leaving_working_directory():  # a process that counts locks may start
            self._executor = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._task, find_version())
            )

    def open(self) -> "Future[Ready]":
        """See `Seat`."""
        before = active_children()
        with leaving_working_directory():
            future = self._executor.submit(_open)
        self._processes = [process for process in active_children() if process not in before]
        return future

    def work(self, job: Job) -> "Future[Any]":
        """See `Seat`."""
        try:
            return self._executor.submit(_work, job)
        except BrokenProcessPool as error:  # it died since its last job
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def close(self) -> None:
        """See `Seat`."""
        for process in self._processes:
            process.terminate()  # it may be building an engine for minutes
        self._executor.shutdown(cancel_futures=True)

    def is_death(self, error: BaseException) -> bool:
        """See `Seat`."""
        return isinstance(error, BrokenProcessPool)

    def unwrap(self, error: BaseException) -> BaseException:
        """See `Seat`."""
        return error


def _begin(task: Task[Any], version: str) -> None:
    """Make this process a worker; it ends with its parent, whatever ended that."""
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="ndp-rt: ends with its parent", daemon=True).start()
    _workers.append(Worker(task, version))


def _open() -> Ready:
    return _workers[0].open()


def _work(job: Job) -> Any:
    return _workers[0].work(job)
