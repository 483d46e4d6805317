"""Records of measurements: what every one of them says, and how they are written."""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ndp_rt.evaluate.machine import describe_machine, list_versions
from ndp_rt.files import storing, write_atomically

Record = dict[str, Any]
REMEDY = "Free some space, or choose another place."
# What lies around a model's own stages in `stages_ms` of a row of `ndp-rt bench`, which stand where `engine` does.
STAGES = ("upload", "preprocess", "engine", "postprocess", "download")


def order_stages(names: Iterable[str]) -> list[str]:
    """Return the names of stages in the order in which an image goes through them; a model's own stay as they come."""
    return sorted(names, key=lambda name: STAGES.index(name if name in STAGES else "engine"))


def start_record(kind: str, format_version: int, command: str) -> Record:
    """Return the head of a record: its format, when and with which command it was made, machine and versions."""
    return {
        "format": kind,
        "format_version": format_version,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": describe_machine(),
        "versions": list_versions(),
    }


@contextmanager
def timing_run(record: Record) -> Iterator[None]:
    """Time a run into its record, and say whether it came to its end."""
    start = time.monotonic()
    try:
        yield
        record["is_complete"] = True
    finally:
        record["elapsed_s"] = round(time.monotonic() - start, 1)


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as JSON; the file is there whole or, after a failure, as it was before.

    Raises:
        StorageError: the folder or the file could not be written.
    """
    write_atomically(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode(), REMEDY)


def check_appendable(path: Path) -> None:
    """Check that a record can be appended to a file, before time is spent on it; nothing stays behind.

    Raises:
        StorageError: it cannot.
    """
    is_new = not path.exists()
    with storing(path, "Choose another place with -o."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()


def append_record(record: Mapping[str, Any], path: Path) -> None:
    """Append a record to a file of one JSON object a line, in one write; earlier lines stay as they are.

    Raises:
        StorageError: the folder or the file could not be written; no part of the record is left.
    """
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    with storing(path, REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as stream:
            if stream.seekable() and stream.tell() and not _ends_with_line_feed(path):
                line = b"\n" + line  # a line that was cut must not swallow this one
            written = stream.write(line)
            if written != len(line):
                if os.fstat(stream.fileno()).st_size == stream.tell():  # else another run has appended since
                    stream.truncate(stream.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _ends_with_line_feed(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"
