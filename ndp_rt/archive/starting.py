"""Starting workers: what must hold while a process starts."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def holding_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait until what is done meanwhile is done.

    It would leave locks of futures held, and a process that starts would say that it got half of what it needs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    # A process that starts has the mask of this thread, until it ignores the signal itself.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if came:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def leaving_working_directory() -> Iterator[None]:
    """Work at the root meanwhile: Python processes that start look for modules in the working directory first.

    PYTHONSAFEPATH would do for processes of our own from Python 3.11 on. Ray sends the directory to its workers.
    """
    try:
        before = os.getcwd()
    except FileNotFoundError:  # somebody has removed it
        yield
        return
    os.chdir(os.path.abspath(os.sep))
    try:
        yield
    finally:
        os.chdir(before)
