"""The host, compiled for a run and driven by lines, and what its answers say: bits and checksums in hexadecimal."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.timed.process import ChildProcess
from ndp_rt.capi.build import FOLDER, LIBRARY_NAME, build_library, run_compiler
from ndp_rt.capi.installed import find_problem, list_compile_flags, list_link_flags
from ndp_rt.config import find_compiler
from ndp_rt.errors import EngineError, MissingExtraError

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-std=c++20", "-O2", "-g", "-Wall", "-Wextra", "-pedantic")
CLOSE_WAIT_S = 30.0
Answer = dict[str, Any]  # score, map_sum: 16 digits; defect_count: a number
FIELDS = ("score", "map_sum", "defect_count")


class HostProcess(ChildProcess):
    """A running host and its answers; EngineError where it reports a failure or dies."""

    main_s: float  # when its `main` began, by time.monotonic

    def __init__(self, path: Path) -> None:
        """Start it."""
        super().__init__([str(path)], title="the C host", encoding="utf-8", close_wait_s=CLOSE_WAIT_S)

    def ask(self, request: str, *words: object) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            EngineError: it failed, a result was wrong, or the process died; the message says which.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        self.is_answer_due = True
        try:
            self._child.stdin.write("\t".join([request, *map(str, words)]) + "\n")
            self._child.stdin.flush()
            answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        except (OSError, ValueError) as error:
            raise self.explain_death() from error
        self.is_answer_due = False
        if "error" in answer:
            raise EngineError(f"{self.title}: {answer['error']}")
        return answer

    def read_memory(self) -> dict[str, int]:
        """Return what it holds: resident memory, descriptors and threads."""
        folder = Path("/proc") / str(self.process_id)
        counts = {name: len(os.listdir(folder / kind)) for name, kind in (("descriptors", "fd"), ("threads", "task"))}
        return {"rss_bytes": self.read_rss_bytes(), **counts}

    def read_rss_bytes(self) -> int:
        """Return its resident memory.

        smaps_rollup walks the pages; the counters behind status and statm may be off by some dozens for each core.
        """
        found = re.search(r"^Rss: *(\d+)", Path(f"/proc/{self.process_id}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None  # the kernel always says it
        return int(found[1]) * 1024


@dataclass(frozen=True, kw_only=True)
class HostProgram:
    """The compiled host and the library that it is linked with."""

    path: Path
    library: Path
    library_source: str  # how the library came to be

    def start(self) -> HostProcess:
        """Start a host whose library uses this interpreter.

        Raises:
            EngineError: the runtime does not start there.
        """
        process = HostProcess(self.path)
        try:
            process.main_s = process.ask("start", sys.executable)["main_s"]
        except BaseException:
            process.kill()
            process.close()
            raise
        return process

    def describe(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {
            "library": self.library_source,
            "library_sha256": hashlib.sha256(self.library.read_bytes()).hexdigest(),
            "compiler": read_compiler_version(),
            "flags": " ".join(FLAGS),
        }


def build_host(folder: Path) -> HostProgram:
    """Compile the library and the host into a folder.

    Where the library cannot be compiled, the one that is installed with ndp-rt is used.

    Raises:
        MissingExtraError: there is no compiler; or no way to a library.
        EngineError: the compiler fails; the message ends with what it said.
    """
    try:
        library, source = build_library(folder), "compiled for this run"
    except MissingExtraError:
        library, source = FOLDER / LIBRARY_NAME, "installed"
        if find_problem() is not None:
            raise
    out = folder / "host"
    inputs = [str(path) for path in sorted(SOURCE.glob("*.cpp"))]
    command = [*find_compiler(), *FLAGS, *list_compile_flags(), *inputs, "-o", str(out)]
    command += [*list_link_flags(library.parent), "-lstdc++", "-lpthread"]
    run_compiler(command, "the host in C++")
    return HostProgram(path=out, library=library, library_source=source)


def read_compiler_version() -> str | None:
    """Return the first line of what the compiler says of itself; None: it says nothing."""
    try:
        done = subprocess.run([*find_compiler(), "--version"], capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return next(iter(done.stdout.splitlines()), None)


def write_score(score: float) -> str:
    """Return the bits of a float64."""
    return struct.pack(">d", score).hex()


def read_score(answer: Answer) -> float:
    """Return an answer's score."""
    found: float = struct.unpack(">d", bytes.fromhex(answer["score"]))[0]
    return found


def sum_values(values: NDArray[Any]) -> str:
    """Return the checksum that source/pictures.cpp makes: each value's bits times an odd number of its place's own."""
    bits = np.ascontiguousarray(values).reshape(-1)
    bits = bits.view(np.uint32) if bits.dtype == np.float32 else bits
    places = 2 * np.arange(bits.size, dtype=np.uint64) + np.uint64(1)
    return f"{int((bits.astype(np.uint64) * places).sum(dtype=np.uint64)):016x}"


def teach(process: ChildProcess, picture: int, answer: Answer) -> None:
    """Tell a process what a picture has to give from now on."""
    process.ask("expect", picture, *(answer[name] for name in FIELDS))


def learn(process: ChildProcess, inspector: int, picture: int) -> Answer:
    """Have a picture inspected once and its answer expected from now on; return it.

    Raises:
        EngineError: the inspection failed.
    """
    answer: Answer = process.ask("answer", inspector, picture)
    teach(process, picture, answer)
    return answer


def check_same(found: Answer, expected: Answer, what: str) -> None:
    """Check that two answers are the same, bit for bit.

    Raises:
        EngineError: they are not; the message names what differs.
    """
    for name in FIELDS:
        if found[name] != expected[name]:
            raise EngineError(f"a wrong answer: {what}: {name} is {found[name]}; {expected[name]} is expected.")
