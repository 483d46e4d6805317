"""Comparing two records row by row: ratios of times with their uncertainty, errors and accuracies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.latency import RATIO_CONFIDENCE, RESAMPLE_COUNT
from ndp_rt.bench.read_records import StoredRecord, find_number, find_section, list_numbers, read_records
from ndp_rt.errors import InputError

DEFAULT_TOLERANCE = 0.05
ACCURACY_DROP = 0.005  # a ROC area or AUPRO that falls by more is a loss
MIN_ROUND_COUNT = 3  # of each side; with fewer, queries are resampled instead
ACCURACIES = {"image_rocauc": "image ROCAUC", "pixel_rocauc": "pixel ROCAUC", "aupro": "AUPRO"}
BLOCK_SIZE = 2**20  # times of resamples in memory at once
LINE_SUFFIX = re.compile(r"(?P<path>.+)[:#](?P<line>[0-9]+)$")

RowKey = tuple[str, str, str]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TimeRatio:
    """B's p50 over A's with its interval at RATIO_CONFIDENCE; `low` and `high` are None where nothing can be resampled.

    `source` says what was resampled: "rounds", "queries" or "nothing".
    """

    median: float
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """One row in both records. `losses` are sentences, each of them a reason to fail; `verdict` is about time alone."""

    key: RowKey
    a_p50_ms: float
    b_p50_ms: float
    ratio: TimeRatio
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
    if not 0 <= tolerance < np.inf:
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
    ratio = compare_times(a, b)
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
        rate_ratio=rate_b / rate_a if rate_a and rate_b else None,
        error_change=None if error_a is None or error_b is None else error_b - error_a,
        accuracy_changes=changes,
        verdict=verdict,
        losses=tuple(losses),
    )


def judge_time(ratio: TimeRatio, tolerance: float) -> str:
    """Return "slower" or "faster" where the whole interval is beyond the tolerance, else "uncertain" or "same"."""
    bound = 1 + tolerance
    if ratio.low is not None and ratio.low > bound:
        return "slower"
    if ratio.high is not None and ratio.high < 1 / bound:
        return "faster"
    return "uncertain" if ratio.median > bound else "same"


def compare_times(a: Mapping[str, Any], b: Mapping[str, Any]) -> TimeRatio:
    """Return the ratio of two rows' median times; rounds are resampled where both have enough, else queries.

    The median is over the same numbers as the interval: a query's median differs a little from that of the rounds.
    """
    for source, key, least in (("rounds", "round_p50_ms", MIN_ROUND_COUNT), ("queries", "latencies_ms", 2)):
        times_a, times_b = list_numbers(a, key), list_numbers(b, key)
        if min(len(times_a), len(times_b)) >= least and min(*times_a, *times_b) > 0:
            low, high = bootstrap_ratio(np.array(times_a), np.array(times_b))
            return TimeRatio(median=float(np.median(times_b) / np.median(times_a)), low=low, high=high, source=source)
    ratio = float(b["latency"]["p50_ms"]) / float(a["latency"]["p50_ms"])
    return TimeRatio(median=ratio, low=None, high=None, source="nothing")


def bootstrap_ratio(times_a: FloatArray, times_b: FloatArray) -> tuple[float, float]:
    """Return the interval of median(b) / median(a), each resampled by itself; the same every time.

    Args:
        times_a: float64 [k], k > 0, above 0.
        times_b: float64 [m], m > 0, above 0.
    """
    rng = np.random.default_rng(0)
    ratios = resample_medians(times_b, rng) / resample_medians(times_a, rng)
    tail = (1 - RATIO_CONFIDENCE) / 2 * 100
    low, high = np.percentile(ratios, (tail, 100 - tail))
    return float(low), float(high)


def resample_medians(times: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return float64 [RESAMPLE_COUNT], the medians of resamples of times [k]."""
    block = max(1, BLOCK_SIZE // times.size)
    counts = [min(block, RESAMPLE_COUNT - start) for start in range(0, RESAMPLE_COUNT, block)]
    return np.concatenate([np.median(rng.choice(times, (count, times.size)), axis=1) for count in counts])


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
    sentences = []
    machine = _list_changes(find_section(a, "machine"), find_section(b, "machine"), skip=("clock_mhz",))
    if machine:
        sentences.append(f"The machines differ, so a ratio is about them too: {'; '.join(machine)}.")
    versions = _list_changes(find_section(a, "versions"), find_section(b, "versions"))
    if versions:
        sentences.append(f"Versions differ: {'; '.join(versions)}.")
    bundle_a, bundle_b = find_section(a, "bundle"), find_section(b, "bundle")
    if bundle_a.get("fingerprint") != bundle_b.get("fingerprint"):
        changed = _list_changes(bundle_a, bundle_b, skip=("fingerprint", "plain"))
        words = f": {'; '.join(changed)}" if changed else ", though their descriptions are the same"
        prints = " and ".join(str(one.get("fingerprint"))[:12] for one in (bundle_a, bundle_b))
        sentences.append(f"The bundles differ (fingerprints {prints}){words}.")
    names = {
        "threads": "threads",
        "device": "device",
        "inside_the_clock": "inside the clock",
        "is_from_file": "decoding from a file",
        "image_source": "images",
        "image_count": "count of images",
    }
    settings = [{names[key]: find_section(one, "settings").get(key) for key in names} for one in (a, b)]
    changed = _list_changes(settings[0], settings[1])
    if changed:
        sentences.append(f"Settings differ: {'; '.join(changed)}.")
    data_a, data_b = find_section(a, "data"), find_section(b, "data")
    if data_a != data_b:
        sentences.append("Accuracies are of different data, and those of different sources are not compared.")
    for letter, record in (("A", a), ("B", b)):
        if not record.get("is_complete"):
            sentences.append(f"{letter} is incomplete: its run was ended early.")
    return sentences


def _list_changes(a: Mapping[str, Any], b: Mapping[str, Any], skip: Sequence[str] = ()) -> list[str]:
    """Return "key: from -> to" for each key whose value differs; what neither has is no difference."""
    keys = [key for key in dict.fromkeys([*a, *b]) if key not in skip and a.get(key) != b.get(key)]
    return [f"{key}: {_show(a.get(key))} -> {_show(b.get(key))}" for key in keys]


def _show(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return str(value.get("name") or value)
    return "none" if value is None else str(value)
