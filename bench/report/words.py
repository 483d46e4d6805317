"""Numbers and settings of a record in words."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section, list_sentences
from ndp_rt.evaluate.record import Record

DASH = "\u2013"
MAX_NAME_LENGTH = 44
# What XML and HTML do not take: control characters but for tab and line ends, and halves of surrogate pairs.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
MODES = {
    "latency": "latency",
    "cold": "cold start",
    "idle": "first image after a pause",
    "sweep": "scaling",
}
AXIS_WORDS = {
    "batch": "batch size",
    "threads": "threads",
    "size": "side of the image, px",
    "streams": "parallel streams",
}
COLD_WORDS = {"hit": "engine cached", "miss": "engine to be built"}
KIND_WORDS = {
    "ndp-rt": "ndp-rt",
    "same network": "another runtime, same network",
    "other network": "another network",
}


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, all those of a large one in groups; a dash for None."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def format_plain(value: float) -> str:
    """Return a number without trailing zeros, for settings: 0.5, 20, 1,000."""
    return f"{value:,.12g}"


def format_error(value: float | None) -> str:
    """Return a difference of maps with two digits: 1.2e-07."""
    if value is None:
        return DASH
    return "0" if value == 0 else f"{value:.1e}"


def format_share(value: float | None, digits: int = 3) -> str:
    """Return a share of 1 as a percentage."""
    return DASH if value is None else f"{format_number(100 * value, digits)}\u00a0%"


def format_bytes(value: float | None) -> str:
    """Return an amount of memory in MiB, from 1 GiB on in GiB."""
    if value is None:
        return DASH
    mebibytes = value / 2**20
    return f"{format_number(mebibytes)} MiB" if mebibytes < 1024 else f"{format_number(mebibytes / 1024)} GiB"


def format_accuracy(value: float | None) -> str:
    """Return a ROC area or AUPRO, 0 to 1."""
    return DASH if value is None else f"{value:.3f}"


def format_ratio(ratio: Mapping[str, Any]) -> str:
    """Return a ratio of times with its interval."""
    median, low, high = (find_number(ratio, key) for key in ("median", "low", "high"))
    if median is None:
        return DASH
    if low is None or high is None:
        return format_number(median)
    return f"{format_number(median)} ({format_number(low)} to {format_number(high)})"


def clean_text(text: str) -> str:
    """Return text with a mark for each character that a page cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)


def shorten(text: str, length: int = MAX_NAME_LENGTH) -> str:
    """Return text as a figure can hold it: one line, cut in the middle where it is longer than `length`."""
    line = clean_text(" ".join(text.split()))
    if len(line) <= length:
        return line
    tail = length // 3
    return f"{line[: length - tail - 1]}\u2026{line[-tail:]}"


def name_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each row's name, with batch and scenario where the rows differ in them."""
    varies = {key: len({str(row.get(key)) for row in rows}) > 1 for key in ("batch", "scenario")}
    names = []
    for row in rows:
        parts = [str(row["name"])]
        if varies["batch"] and row.get("batch") is not None:
            parts.append(f"batch {row['batch']}")
        if varies["scenario"] and row.get("scenario"):
            parts.append(str(row["scenario"]))
        names.append(", ".join(parts))
    return names


def describe_percentile(percentile: Mapping[str, Any]) -> str:
    """Return MLPerf's percentile of a scenario: its estimate and bound, and whether the queries suffice for it."""
    share = find_number(percentile, "share")
    if share is None:
        return DASH
    words = f"p{format_plain(100 * share)} {format_number(find_number(percentile, 'estimate_ms'))} ms"
    bound = find_number(percentile, "bound_ms")
    words += f", \u2264 {format_number(bound)} ms" if bound is not None else ", no bound"
    if percentile.get("is_enough") is False:
        count, needed = find_number(percentile, "query_count"), find_number(percentile, "needed_count")
        if count is not None and needed is not None:
            words += f" ({count:,.0f} of {needed:,.0f} queries)"
    return words


def describe_server(server: Mapping[str, Any]) -> str:
    """Return what the scenario "server" was asked for and whether it was met."""
    verdict = "met" if server.get("is_met") else "not met"
    return (
        f"{verdict}: {format_number(find_number(server, 'achieved_qps'))} of "
        f"{format_number(find_number(server, 'target_qps'))} queries/s within "
        f"{format_number(find_number(server, 'latency_bound_ms'))} ms"
    )


def describe(section: Mapping[str, Any]) -> str:
    """Return the fields of a record's section in words; those that are not known are left out."""
    words = ((key, describe_value(key, value)) for key, value in section.items())
    return ", ".join(f"{key.removesuffix('_bytes').replace('_', ' ')} {text}" for key, text in words if text)


def describe_value(key: str, value: object) -> str:
    """Return a field's value in words; none where it is empty."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        inner = describe(value)
        return f"({inner})" if inner else ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_bytes(value) if key.endswith("_bytes") else format_plain(value)
    return str(value)


def name_record(record: Record) -> str:
    """Return a record's heading: bundle, mode and day."""
    bundle = str(find_section(record, "bundle").get("name") or "unnamed")
    mode = MODES[record["mode"]]
    if record["mode"] == "sweep":
        axis = str(find_section(record, "sweep").get("axis") or "value")
        mode += f" with {AXIS_WORDS.get(axis, axis).split(',')[0]}"
    day = str(record.get("created") or "date unknown")[:10]
    return f"{bundle}: {mode}, {day}" + ("" if record.get("is_complete") else " (incomplete)")


def list_headlines(record: Record) -> list[str]:
    """Return what the record says, in a sentence or two."""
    rows = record.get("rows") or []
    sentences = list_sentences(find_section(record, "sweep"), "words")
    if rows:
        row = rows[0]
        numbers = (
            (find_number(row, "latency", "p50_ms"), "ms at the median"),
            (find_number(row, "latency", "p99_ms"), "ms at p99"),
            (find_number(row, "images_per_s"), "images/s"),
        )
        words = ", ".join(f"{format_number(value)} {unit}" for value, unit in numbers if value is not None)
        sentences.append(f"{name_rows(rows)[0]}: {words}.")
    slower = [row for row in rows[1:] if find_number(row, "ratio", "median") is not None]
    if slower:
        row = min(slower, key=lambda one: find_number(one, "ratio", "median") or 0.0)
        sentences.append(
            f"The fastest of the others is {row['name']}: {format_ratio(row['ratio'])} times the time of "
            f"{row['ratio'].get('to') or 'the first row'}, the 95 % interval in brackets."
        )
    return sentences
