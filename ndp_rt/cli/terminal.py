"""Prints lines in which names from files and bundles stand, as names alone: none of them moves the cursor."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Control characters, those that turn the direction of writing, line separators, and bytes that are no UTF-8.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def show(text: object) -> str:
    """Return a text with unsafe characters as escapes, its further lines indented so that none passes for a message."""
    return "\n  ".join(UNSAFE.sub(_escape, line) for line in str(text).split("\n"))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def say(text: object) -> None:
    """Print a line to stdout."""
    print(show(text), flush=True)


def complain(text: object) -> None:
    """Print a line to stderr, if anybody listens."""
    with contextlib.suppress(OSError, ValueError):  # it was closed
        print(show(text), file=sys.stderr, flush=True)


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console of rich's that prints whatever stands in names as names, in tables too.

    Further lines of a name are not indented: who prints a sentence with names passes `show(sentence)`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(UNSAFE.sub(_escape, one.text), one.style)

    return SafeConsole(stderr=stderr, highlight=False)


class SafeFormatter(logging.Formatter):
    """Formats what the library logs as a line for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return show(super().format(record))


def open_missing_streams() -> None:
    """Open the null device in place of standard streams that were closed before the start, as by `2>&-`.

    Else the next file that is opened would get a stream's number, and what libraries complain of would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 as long as the process
