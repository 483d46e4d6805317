"""Comparing two records row by row: ratios of times with their uncertainty, errors and accuracies."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.bench.latency import Ratio, compare_medians
from ndp_rt.bench.read_records import StoredRecord, find_number, find_section, list_numbers, read_records
from ndp_rt.bench.report.words import describe_value
from ndp_rt.errors import InputError

DEFAULT_TOLERANCE = 0.05
ACCURACY_DROP = 0.005  # a ROC area or AUPRO that falls by more is a loss
MIN_ROUND_COUNT = 3  # of each side; with fewer, queries are resampled instead
ACCURACIES = {"image_rocauc": "image ROCAUC", "pixel_rocauc": "pixel ROCAUC", "aupro": "AUPRO"}
SECTIONS = {
    "machine": "The machines differ, so a ratio is about them too",
    "versions": "Versions differ",
    "bundle": "The bundles differ",
    "settings": "Settings differ",
}
UNTOLD = ("clock_mhz", "plain", "backend", "precision", "scenario", "scenario_means", "batches", "seconds", "rounds")
MAX_WORDS = 60  # letters of a value
LINE_SUFFIX = re.compile(r"(?P<path>.+)[:#](?P<line>[0-9]+)$")

RowKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """One row in both records. `losses` are sentences, each of them a reason to fail; `verdict` is about time alone.

    `ratio` is B's time over A's, resampled from `source`: "rounds", "queries" or, without an interval, "nothing".
    """

    key: RowKey
    a_p50_ms: float
    b_p50_ms: float
    ratio: Ratio
    source: str
    rate_ratio: float | None
    error_change: float | None
    accuracy_changes: Mapping[str, float]
    verdict: str
    losses: tuple[str, ...]

    @property
    def name(self) -> str:
        return name_key(self.key)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two records beside each other."""

    differences: tuple[str, ...]  # sentences on what else differs
    rows: tuple[RowComparison, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]

    @property
    def losses(self) -> list[str]:
        """Everything that B lost, with the row's name."""
        return [f"{row.name}: {loss}" for row in self.rows for loss in row.losses]


def pick_record(word: str) -> StoredRecord:
    """Return the last complete record of a file, or the one on line N of NAME:N or NAME#N, complete or not.

    Raises:
        InputError: as `read_records`, or the line is none, or no record is complete, or the record has no rows.
    """
    path, line = Path(word), None
    found = LINE_SUFFIX.match(word)
    if found is not None and not path.exists():
        path, line = Path(found["path"]), int(found["line"])
    stored = read_records(path)
    if line is None:
        complete = [one for one in stored if one.record.get("is_complete")]
        if not complete:
            raise InputError(
                f"{path} has no complete record among its {len(stored)}. Name a line to take it as it is: "
                f"{path}:{stored[-1].line}"
            )
        picked = complete[-1]
    else:
        lines = {one.line: one for one in stored}
        if line not in lines:
            raise InputError(f"{path} has no record on line {line}; lines {min(lines)} to {max(lines)} hold records.")
        picked = lines[line]
    if not picked.record.get("rows"):
        raise InputError(
            f"{path}, line {picked.line} is a record of mode '{picked.record['mode']}' without rows; records with rows "
            "are compared. Name the line of another: NAME.jsonl:N"
        )
    return picked


def compare_records(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float = DEFAULT_TOLERANCE) -> Comparison:
    """Return how record B differs from record A.

    Args:
        a: a record with rows, the earlier one.
        b: another.
        tolerance: how much slower a row may be, 0.05 for 5 %.

    Raises:
        InputError: a negative tolerance, or no row is in both.
    """
    if not 0 <= tolerance < math.inf:
        raise InputError(f"--tolerance: expected a number from 0 on, such as 0.05 for 5 %, got {tolerance}.")
    rows_a, rows_b = index_rows(a), index_rows(b)
    shared = [key for key in rows_a if key in rows_b]
    if not shared:
        raise InputError(
            f"no row is in both records: A has {_list_names(rows_a)}; B has {_list_names(rows_b)}. Rows are matched by "
            "name, batch and scenario; compare runs of the same rivals."
        )
    return Comparison(
        differences=tuple(list_differences(a, b)),
        rows=tuple(compare_rows(key, rows_a[key], rows_b[key], tolerance) for key in shared),
        only_in_a=tuple(name_key(key) for key in rows_a if key not in rows_b),
        only_in_b=tuple(name_key(key) for key in rows_b if key not in rows_a),
    )


def index_rows(record: Mapping[str, Any]) -> dict[RowKey, Mapping[str, Any]]:
    """Return a record's rows by name, batch and scenario."""
    return {(row["name"], str(row.get("batch", "")), str(row.get("scenario", ""))): row for row in record["rows"]}


def name_key(key: RowKey) -> str:
    """Return what a row is matched by, in words."""
    name, batch, scenario = key
    return ", ".join(part for part in (name, f"batch {batch}" if batch else "", scenario) if part)


def _list_names(rows: Mapping[RowKey, Any]) -> str:
    return "; ".join(name_key(key) for key in rows)


def compare_rows(key: RowKey, a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float) -> RowComparison:
    """Return one row of both records beside each other."""
    ratio, source = compare_times(a, b)
    verdict = judge_time(ratio, tolerance)
    losses = []
    if verdict == "slower":
        losses.append(f"p50 is {ratio.median:.3f} times A's, and {1 + tolerance:g} lies below the whole interval")
    error_a, error_b = (find_number(row, "check", "map_max_abs_difference") for row in (a, b))
    allowed = find_number(b, "check", "allowed")
    if error_b is not None and allowed is not None and error_b > allowed and (error_a is None or error_b > error_a):
        losses.append(f"the map error rose to {error_b:.2g}; {allowed:g} is allowed")
    changes = list_accuracy_changes(a, b)
    losses += [
        f"{ACCURACIES[metric]} fell by {-change:.4f}; {ACCURACY_DROP:g} is allowed"
        for metric, change in changes.items()
        if change < -ACCURACY_DROP
    ]
    rate_a, rate_b = find_number(a, "images_per_s"), find_number(b, "images_per_s")
    return RowComparison(
        key=key,
        a_p50_ms=float(a["latency"]["p50_ms"]),
        b_p50_ms=float(b["latency"]["p50_ms"]),
        ratio=ratio,
        source=source,
        rate_ratio=rate_b / rate_a if rate_a and rate_b else None,
        error_change=None if error_a is None or error_b is None else error_b - error_a,
        accuracy_changes=changes,
        verdict=verdict,
        losses=tuple(losses),
    )


def judge_time(ratio: Ratio, tolerance: float) -> str:
    """Return "slower" or "faster" where the whole interval is beyond the tolerance, else "uncertain" or "same"."""
    bound = 1 + tolerance
    if ratio.low > bound:
        return "slower"
    if ratio.high < 1 / bound:
        return "faster"
    return "uncertain" if ratio.median > bound else "same"


def compare_times(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Ratio, str]:
    """Return the ratio of two rows' median times, and what was resampled: rounds, where both have enough, or queries.

    The median is over the same numbers as the interval: a query's median differs a little from that of the rounds.
    """
    for source, key, least in (("rounds", "round_p50_ms", MIN_ROUND_COUNT), ("queries", "latencies_ms", 2)):
        times_a, times_b = list_numbers(a, key), list_numbers(b, key)
        if min(len(times_a), len(times_b)) >= least and min(*times_a, *times_b) > 0:
            return compare_medians(times_b, times_a), source
    return Ratio(
        median=float(b["latency"]["p50_ms"]) / float(a["latency"]["p50_ms"]), low=0.0, high=math.inf
    ), "nothing"


def list_accuracy_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
    """Return B's accuracies less A's, where both were found on the same data."""
    found_a, found_b = find_section(a, "accuracy"), find_section(b, "accuracy")
    if found_a.get("source") != found_b.get("source"):
        return {}
    changes = {}
    for metric in ACCURACIES:
        value_a, value_b = find_number(found_a, metric), find_number(found_b, metric)
        if value_a is not None and value_b is not None:
            changes[metric] = value_b - value_a
    return changes


def list_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return sentences on what differs besides the figures: machine, versions, bundle, settings, data."""
    sentences = [
        f"{words}: {'; '.join(changes)}."
        for section, words in SECTIONS.items()
        if (changes := _list_changes(find_section(a, section), find_section(b, section)))
    ]
    if find_section(a, "data") != find_section(b, "data"):
        sentences.append("Accuracies are of different data, and those of different sources are not compared.")
    for letter, record in (("A", a), ("B", b)):
        if not record.get("is_complete"):
            sentences.append(f"{letter} is incomplete: its run was ended early.")
    return sentences


def _list_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return "key: from -> to" for each key whose value differs; what neither has is no difference."""
    keys = [key for key in dict.fromkeys([*a, *b]) if key not in UNTOLD and a.get(key) != b.get(key)]
    values = ((key, *(describe_value(key, one.get(key))[:MAX_WORDS] or "none" for one in (a, b))) for key in keys)
    return [f"{key.replace('_', ' ')}: {before} -> {after}" for key, before, after in values]
