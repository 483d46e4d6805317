"""Reading the records of `ndp-rt bench`: docs/bench-record.md says what they hold."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.errors import InputError
from ndp_rt.evaluate.record import Record

FORMAT = "ndp-rt bench"
FORMAT_VERSION = 1
MODES = ("latency", "cold", "idle", "sweep")
REMEDY = "Give a file that `ndp-rt bench` wrote."


@dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """A record and where it lies; lines count from 1."""

    path: Path
    line: int
    record: Record


def find_number(source: object, *keys: str) -> float | None:
    """Return the finite number under `keys`, one mapping inside the other; None where there is none."""
    for key in keys:
        if not isinstance(source, Mapping):
            return None
        source = source.get(key)
    if isinstance(source, bool) or not isinstance(source, int | float):
        return None
    return float(source) if math.isfinite(source) else None


def list_numbers(source: object, key: str) -> list[float]:
    """Return the finite numbers of the list under `key`, empty where there is none."""
    found = source.get(key) if isinstance(source, Mapping) else None
    if not isinstance(found, list):
        return []
    return [float(one) for one in found if isinstance(one, int | float) and math.isfinite(one)]


def find_section(source: object, key: str) -> Mapping[str, Any]:
    """Return the mapping under `key`, empty where there is none."""
    found = source.get(key) if isinstance(source, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def list_sentences(source: object, key: str) -> list[str]:
    """Return the list under `key` as text, empty where there is none."""
    found = source.get(key) if isinstance(source, Mapping) else None
    return [str(one) for one in found] if isinstance(found, list) else []


def read_records(path: Path) -> list[StoredRecord]:
    """Return the records of a file that holds one JSON object a line, or one object in all.

    Raises:
        InputError: the file is missing or no text, a line is no JSON object, a record is of another format or of a
            newer version, a row has no latency, or there is no record at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error.reason}). {REMEDY}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {REMEDY}") from error
    try:
        json.loads(text)
        pieces = [(text[: len(text) - len(text.lstrip())].count("\n") + 1, text)]
    except (ValueError, RecursionError):
        pieces = [(line, piece) for line, piece in enumerate(text.split("\n"), 1) if piece.strip()]
    if not pieces:
        raise InputError(f"{path} holds no record. {REMEDY}")
    return [StoredRecord(path=path, line=line, record=_read(piece, f"{path}, line {line}")) for line, piece in pieces]


def _read(piece: str, where: str) -> Record:
    """Return a record that holds what every reader needs; `where` begins the messages."""

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no JSON number")

    try:
        record: Record = json.loads(piece, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is no JSON ({error}). A record is one object on one line; mend the line or remove it."
        ) from error
    if not isinstance(record, dict):
        raise InputError(f"{where} is a JSON {type(record).__name__}; a record is an object.")
    version, mode = record.get("format_version"), record.get("mode")
    if record.get("format") != FORMAT:
        came = record.get("format")
        raise InputError(f"{where}: expected a record of the format '{FORMAT}', got {came!r}. {REMEDY}")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{where}: expected a format_version from 1 to {FORMAT_VERSION}, got {version!r}.")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{where}: format_version is {version}; this ndp-rt reads up to {FORMAT_VERSION}. Update ndp-rt to read it."
        )
    if mode not in MODES:
        raise InputError(f"{where}: expected one of the modes {', '.join(MODES)}, got {mode!r}.")
    rows = record.get("rows", [])
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
    ):
        raise InputError(f"{where}: 'rows' is no list of objects with a name each, as a record has it.")
    for row in rows:
        if (find_number(row, "latency", "p50_ms") or 0.0) <= 0:
            raise InputError(
                f"{where}: row '{row['name']}' has no latency (p50_ms above 0). Remove the row, or measure it again."
            )
    return record
