"""What becomes of inspectors when their process ends or forks.

Engines compute in threads that Python knows nothing of. When the interpreter goes while one is at work it crashes, so
everything is closed before. A forked child has none of these threads: what waits for them would wait for ever.
"""

import atexit
import contextlib
import ctypes
import os
from typing import Protocol
from weakref import WeakSet

EXIT_WAIT_S = 30.0  # for a call in progress; past this the process ends as it may


class Tracked(Protocol):
    """Something that computes, or waits for what does."""

    def end(self) -> None:
        """Let calls in progress finish, at most EXIT_WAIT_S, and allow no more: the interpreter is about to go."""

    def abandon(self) -> None:
        """Refuse every call from now on without waiting for anything: this is the child of a fork."""


_live: WeakSet[Tracked] = WeakSet()
_hooks: list[int] = []  # the process that has them


def track(one: Tracked) -> None:
    """End `one` before the interpreter does, unless it goes earlier, and abandon it in forked children."""
    if not _hooks:
        _hooks.append(os.getpid())
        atexit.register(_end_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_abandon_all)
    _live.add(one)


def keep_for_ever(one: object) -> None:
    """Never destroy an object, at the interpreter's end either: its destructor would wait for threads of the parent."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _end_all() -> None:
    for one in list(_live):
        with contextlib.suppress(Exception):  # there is nobody to tell, and others are to be ended
            one.end()


def _abandon_all() -> None:
    for one in list(_live):
        one.abandon()
    _live.clear()
