"""Valid arguments for every function of ndp_rt.h, to be made invalid one at a time."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.capi.library import Library

SIDE = 40


def list_functions(library: Library) -> dict[str, Any]:
    """Return the C type of every function of the header that returns a status."""
    names = [name for name in dir(library.lib) if name.startswith("ndp_rt_")]
    types = {name: library.ffi.typeof(getattr(library.lib, name)) for name in names}
    return {name: one for name, one in types.items() if one.result.cname == "int32_t"}


def list_pointers(library: Library) -> list[tuple[str, int, str]]:
    """Return function, position and type of every pointer argument in the header."""
    return [
        (name, position, argument.cname)
        for name, function in list_functions(library).items()
        for position, argument in enumerate(function.args)
        if argument.kind in ("pointer", "function")
    ]


# What was submitted without a job cannot be waited for: its thread may still write here, or return from the callback,
# when the test has ended. Freed memory there ended the process, once in some full runs.
KEPT: list["Arguments"] = []


class Arguments:
    """Valid arguments for every function; all memory that they point to is here, and can be compared."""

    def __init__(self, library: Library, handle: Any, bundle: Path) -> None:
        ffi = library.ffi
        self.library, self.handle = library, handle
        self.pixels = np.full((SIDE, SIDE), 90, np.uint8)
        self.map, self.mask = np.full((SIDE, SIDE), -3, np.float32), np.full((SIDE, SIDE), 7, np.uint8)
        self.defects = ffi.new("ndp_rt_defect[8]")
        self.image = library.make_image(self.pixels, "GREY8")
        self.result = library.make_result(self.map, self.mask, self.defects)
        # What may be written by a call that fails has its value already.
        self.result.map_needed_bytes, self.result.mask_needed_bytes = SIDE * SIDE * 4, SIDE * SIDE
        self.options = library.make("ndp_rt_open_options", threads=1)
        self.info, self.times = library.make("ndp_rt_info"), library.make("ndp_rt_times")
        self.text, self.needed = ffi.new("char[]", b"." * 2047), ffi.new("size_t *", 99)
        self.threshold = ffi.new("double *", -5.0)
        self.opened, self.job = ffi.new("ndp_rt_inspector **"), ffi.new("ndp_rt_job **")
        self.kept: Any = None  # a job that a test keeps
        KEPT.append(self)
        self.bundle = ffi.new("char[]", str(bundle).encode())
        self.done = ffi.callback("ndp_rt_done_callback", lambda user, status, result: None)
        self.log = ffi.callback("ndp_rt_log_callback", lambda user, level, message: None)

    def list_for(self, function: str) -> list[Any]:
        null, short = self.library.ffi.NULL, function.removeprefix("ndp_rt_")
        many: dict[str, list[Any]] = {
            "runtime_start": [null],
            "runtime_describe": [self.text, 2048, self.needed],
            "log_set": [self.log, null, 50],
            "inspector_open": [self.bundle, self.options, self.opened],
            "inspector_close": [null],
            "inspector_info": [self.handle, self.info],
            "inspector_describe": [self.handle, self.text, 2048, self.needed],
            "inspector_warm_up": [self.handle, 1],
            "inspector_inspect": [self.handle, self.image, self.result],
            "inspector_inspect_batch": [self.handle, self.image, 1, self.result],
            "inspector_inspect_large": [self.handle, self.image, 8, self.result],
            "inspector_submit": [self.handle, self.image, self.result, self.done, null, self.job],
            "job_wait": [null, 0],
            "inspector_cancel": [self.handle, null],
            "inspector_get_threshold": [self.handle, self.threshold],
            "inspector_set_threshold": [self.handle, 0.5],
            "inspector_set_reference": [self.handle, self.image],
            "timings": [self.handle, self.times],
        }
        return many[short]

    def call(self, function: str, arguments: list[Any]) -> str:
        """Call, wait for what was submitted, close what was opened, and return the status."""
        lib, ffi = self.library.lib, self.library.ffi
        status = self.library.name(getattr(lib, function)(*arguments))
        if self.job[0] != ffi.NULL:
            assert lib.ndp_rt_job_wait(self.job[0], -1) == 0
            self.job[0] = ffi.NULL
        if self.opened[0] != ffi.NULL:
            assert lib.ndp_rt_inspector_close(self.opened[0]) == 0
            self.opened[0] = ffi.NULL
        return status

    def read(self) -> list[bytes]:
        """Return all bytes that a call could have written."""
        structs = [self.image, self.result, self.options, self.info, self.times, self.text, self.needed]
        structs += [self.threshold, self.opened, self.job, self.defects]
        planes = [self.pixels.tobytes(), self.map.tobytes(), self.mask.tobytes()]
        return [bytes(self.library.ffi.buffer(one)) for one in structs] + planes

    def check_refused(self, function: str, status: str, *words: str, arguments: list[Any] | None = None) -> None:
        """Check that a call is refused with this status and these words, and writes nothing."""
        before = self.read()
        found = self.call(function, self.list_for(function) if arguments is None else arguments)
        message = self.library.last_error
        assert found == status, f"{function}: {found}, not {status}: {message}"
        assert len(message) > 20 and all(word in message for word in words), message
        assert self.read() == before, f"{function} wrote something, and then said: {message}"
