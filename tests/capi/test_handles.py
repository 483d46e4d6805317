"""Handles that were closed, are of another kind, or never were one: recognised, and never followed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.capi.arguments import Arguments, list_functions
from tests.capi.library import Library


def list_taking(library: Library, kind: str) -> list[str]:
    """Return the functions of the header whose first argument is a handle of this kind."""
    functions = {name: one for name, one in list_functions(library).items() if one.args}
    return [name for name, one in functions.items() if one.args[0].cname == f"ndp_rt_{kind} *"]


@pytest.fixture
def arguments(library: Library, inspector: Any, tiny_bundle: Path) -> Iterator[Arguments]:
    """Valid arguments, with a job that has ended and that nobody has waited for."""
    made, ended = Arguments(library, inspector, tiny_bundle), threading.Event()
    made.done = library.ffi.callback("ndp_rt_done_callback", lambda user, status, result: ended.set())
    assert library.lib.ndp_rt_inspector_submit(*made.list_for("ndp_rt_inspector_submit")) == 0
    assert ended.wait(60)
    made.kept, made.job[0] = made.job[0], library.ffi.NULL
    yield made


def check_all(arguments: Arguments, kind: str, number: int, status: str, *words: str) -> None:
    functions = list_taking(arguments.library, kind)
    assert len(functions) >= (1 if kind == "job" else 12)
    for function in functions:
        given = arguments.list_for(function)
        given[0] = arguments.library.ffi.cast(f"ndp_rt_{kind} *", number)
        arguments.check_refused(function, status, *words, arguments=given)


def to_number(library: Library, handle: Any) -> int:
    return int(library.ffi.cast("uintptr_t", handle))


def test_a_closed_inspector_is_recognised_by_every_function(arguments: Arguments) -> None:
    assert arguments.library.lib.ndp_rt_inspector_close(arguments.handle) == 0
    number = to_number(arguments.library, arguments.handle)
    check_all(arguments, "inspector", number, "CLOSED", "the inspector is closed")
    again = arguments.library.open(Path(arguments.library.ffi.string(arguments.bundle).decode()), threads=1)
    assert again != arguments.handle  # its place in the table is taken again, and still it is another
    check_all(arguments, "inspector", number, "CLOSED", "the inspector is closed")
    arguments.library.lib.ndp_rt_inspector_close(again)


def test_a_job_is_waited_for_once(arguments: Arguments) -> None:
    library = arguments.library
    assert library.lib.ndp_rt_job_wait(arguments.kept, -1) == 0
    check_all(arguments, "job", to_number(library, arguments.kept), "CLOSED", "has been waited for")


def test_a_job_of_a_closed_inspector_is_recognised(arguments: Arguments) -> None:
    assert arguments.library.lib.ndp_rt_inspector_close(arguments.handle) == 0
    check_all(arguments, "job", to_number(arguments.library, arguments.kept), "CLOSED", "its inspector closed")


def test_handles_of_the_other_kind_are_refused(arguments: Arguments) -> None:
    job, inspector = (to_number(arguments.library, one) for one in (arguments.kept, arguments.handle))
    check_all(arguments, "inspector", job, "HANDLE", "expected a handle from ndp_rt_inspector_open")
    check_all(arguments, "job", inspector, "HANDLE", "expected a handle from ndp_rt_inspector_submit")


def test_numbers_made_to_look_like_the_other_kind_are_refused(arguments: Arguments) -> None:
    job, inspector = (to_number(arguments.library, one) for one in (arguments.kept, arguments.handle))
    check_all(arguments, "inspector", job & ~15 | inspector & 15, "HANDLE", "expected a handle")
    check_all(arguments, "job", inspector & ~15 | job & 15, "HANDLE", "expected a handle")


def test_numbers_and_addresses_that_never_were_handles_are_refused(
    arguments: Arguments, rng: np.random.Generator
) -> None:
    inspector, address = to_number(arguments.library, arguments.handle), arguments.pixels.ctypes.data
    numbers = [1, 2, 15, 16, 17, 18, 0x11, 0xDEADBEEF, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, address, address + 1]
    numbers += [inspector ^ 4, inspector + 2**32, inspector + 2**63, inspector | 0xFFFFFFF0, inspector % 2**32]
    numbers += [int(number) for number in rng.integers(2**48, 2**64, 200, dtype=np.uint64)]
    for number in numbers:
        for kind in ("inspector", "job"):
            check_all(arguments, kind, number, "HANDLE")


def test_a_copy_of_a_handle_is_the_same_inspector(arguments: Arguments) -> None:
    copy = arguments.library.ffi.cast("ndp_rt_inspector *", to_number(arguments.library, arguments.handle))
    assert arguments.library.lib.ndp_rt_inspector_set_threshold(copy, 0.125) == 0
    given = arguments.list_for("ndp_rt_inspector_get_threshold")
    assert arguments.call("ndp_rt_inspector_get_threshold", given) == "OK" and arguments.threshold[0] == 0.125
