"""Tables of a record's rows and points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section, list_points, list_sentences
from ndp_rt.bench.report.accuracy_figure import is_reported
from ndp_rt.bench.report.growth import AXIS_WORDS, find_axis
from ndp_rt.bench.report.markup import Markup, join_markup, make_element
from ndp_rt.bench.report.start_figures import COLD_WORDS, IDLE_WORDS
from ndp_rt.bench.report.words import (
    DASH,
    describe_percentile,
    describe_server,
    format_accuracy,
    format_bytes,
    format_error,
    format_number,
    format_plain,
    format_ratio,
    format_share,
)
from ndp_rt.evaluate.record import Record

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading and what a row has under it: `is_text` is set to the left, `is_kept` stays where no row has any."""

    heading: str
    show: Callable[[Row], str]
    is_text: bool = False
    is_kept: bool = False


def show_latency(key: str) -> Callable[[Row], str]:
    """Return what shows a figure of the latency, in ms."""
    return lambda row: format_number(find_number(row, "latency", key))


def show_accuracy(key: str) -> Callable[[Row], str]:
    """Return what shows an accuracy, and whether others reported it."""

    def show(row: Row) -> str:
        value = find_number(row, "accuracy", key)
        return format_accuracy(value) + (" (rep.)" if value is not None and is_reported(row) else "")

    return show


def show_text(key: str) -> Callable[[Row], str]:
    """Return what shows a field as it is."""
    return lambda row: DASH if row.get(key) is None else str(row[key])


def show_name(row: Row) -> str:
    """Return a row's name."""
    return str(row["name"])


def show_check(row: Row) -> str:
    """Return the largest difference of maps, and what is allowed where that is exceeded or known."""
    words = format_error(find_number(row, "check", "map_max_abs_difference"))
    allowed = find_number(row, "check", "allowed")
    return words if allowed is None else f"{words} (\u2264 {allowed:.1g})"


def show_count(row: Row) -> str:
    """Return how many queries were timed."""
    count = find_number(row, "latency", "count")
    return DASH if count is None else f"{count:,.0f}"


def show_cv(row: Row) -> str:
    """Return the coefficient of variation in percent."""
    return format_share(find_number(row, "latency", "cv"), 2)


def show_ratio(row: Row) -> str:
    """Return the ratio to the first row."""
    ratio = find_section(row, "ratio")
    return format_ratio(ratio) if ratio else DASH


def show_ceiling(row: Row) -> str:
    """Return the share of the measured ceiling."""
    return format_share(find_number(row, "ceiling", "share"))


def show_value(point: Row) -> str:
    """Return where on its axis a sweep's point lies."""
    return format_plain(find_number(point, "value") or 0.0)


def show_promise(row: Row) -> str:
    """Return MLPerf's percentile, and what a server scenario came to."""
    server = find_section(row, "server")
    percentile = describe_percentile(find_section(row, "percentile"))
    return f"{percentile}; {describe_server(server)}" if server else percentile


TIME_COLUMNS = (
    Column(heading="name", show=show_name, is_text=True),
    Column(heading="batch", show=show_text("batch")),
    Column(heading="scenario", show=show_text("scenario"), is_text=True),
    Column(heading="p50, ms", show=show_latency("p50_ms")),
    Column(heading="p90, ms", show=show_latency("p90_ms")),
    Column(heading="p99, ms", show=show_latency("p99_ms")),
    Column(heading="images/s", show=lambda row: format_number(find_number(row, "images_per_s"))),
    Column(heading="time over the first row's (95 % interval)", show=show_ratio),
    Column(heading="map error", show=show_check, is_kept=True),
    Column(heading="image ROCAUC", show=show_accuracy("image_rocauc")),
    Column(heading="pixel ROCAUC", show=show_accuracy("pixel_rocauc")),
    Column(heading="AUPRO", show=show_accuracy("aupro")),
)
WORK_COLUMNS = (
    Column(heading="name", show=show_name, is_text=True),
    Column(heading="batch", show=show_text("batch")),
    Column(heading="queries", show=show_count),
    Column(heading="mean, ms", show=show_latency("mean_ms")),
    Column(heading="max, ms", show=show_latency("max_ms")),
    Column(heading="cv", show=show_cv),
    Column(heading="MLPerf's percentile (\u2264: at 99 % confidence)", show=show_promise, is_text=True),
    Column(heading="GFLOP an image", show=lambda row: format_number(find_number(row, "gflop"))),
    Column(heading="MB an image", show=lambda row: format_number(find_number(row, "megabytes"))),
    Column(heading="share of the ceiling", show=show_ceiling),
    Column(heading="peak memory", show=lambda row: format_bytes(find_number(row, "peak_memory_bytes"))),
    Column(heading="GPU memory", show=lambda row: format_bytes(find_number(row, "gpu_memory_bytes"))),
)


def make_table(caption: str, columns: Sequence[Column], rows: Sequence[Row]) -> Markup:
    """Return a table with a caption; a column that would hold dashes alone is left out unless it is kept."""
    shown = [(column, [column.show(row) for row in rows]) for column in columns]
    shown = [(column, cells) for column, cells in shown if column.is_kept or any(cell != DASH for cell in cells)]
    head = make_element(
        "tr", *(make_element("th", column.heading, scope="col", **_looks(column)) for column, _ in shown)
    )
    body = []
    for index in range(len(rows)):
        cells = [
            make_element("th", cells[index], scope="row", class_="text")
            if place == 0
            else make_element("td", cells[index], **_looks(column))
            for place, (column, cells) in enumerate(shown)
        ]
        body.append(make_element("tr", *cells))
    table = make_element(
        "table",
        make_element("caption", caption),
        make_element("thead", head),
        make_element("tbody", *body),
    )
    # A wide table scrolls by itself and leaves the page as wide as the window; keys reach it through tabindex.
    return make_element("div", table, class_="table", tabindex="0", role="region", aria_label=caption)


def _looks(column: Column) -> dict[str, str]:
    return {"class_": "text"} if column.is_text else {}


def make_row_tables(record: Record) -> Markup:
    """Return the rows' two tables: what counts at first sight, and spread, work and memory."""
    rows = record.get("rows") or []
    if not rows:
        return make_element("p", "No row was measured.")
    return join_markup(
        make_table("Time, error and accuracy", TIME_COLUMNS, rows),
        make_table("Spread, work and memory", WORK_COLUMNS, rows),
    )


def make_sweep_table(record: Record) -> Markup:
    """Return a sweep's points as a table."""
    axis = find_axis(record)
    columns = (
        Column(heading=AXIS_WORDS.get(axis, axis), show=show_value, is_text=True),
        Column(heading="series", show=show_text("series"), is_text=True),
        *([] if axis == "threads" else [Column(heading="threads", show=show_text("threads"))]),
        Column(heading="images/s", show=lambda point: format_number(find_number(point, "images_per_s"))),
        Column(heading="p50, ms", show=show_latency("p50_ms")),
        Column(heading="p90, ms", show=show_latency("p90_ms")),
        Column(heading="p99, ms", show=show_latency("p99_ms")),
        Column(heading="cv", show=show_cv),
        Column(heading="efficiency (linear: 1)", show=lambda point: format_number(find_number(point, "efficiency"))),
        Column(heading="map error", show=show_check),
    )
    return make_table("Points of the sweep", columns, list_points(record))


SUMMARY_COLUMNS = (
    Column(heading="what", show=show_name, is_text=True),
    Column(heading="count", show=show_count),
    Column(heading="p50, ms", show=show_latency("p50_ms")),
    Column(heading="p90, ms", show=show_latency("p90_ms")),
    Column(heading="p99, ms", show=show_latency("p99_ms")),
    Column(heading="max, ms", show=show_latency("max_ms")),
    Column(heading="mean, ms", show=show_latency("mean_ms")),
    Column(heading="cv", show=show_cv),
    Column(heading="map error", show=show_check),
)


def make_cold_table(record: Record) -> Markup:
    """Return the latencies of whole starts and of their parts."""
    rows: list[Row] = []
    for key, words in COLD_WORDS.items():
        summary = find_section(find_section(record, "cold"), key)
        if not summary:
            continue
        check = find_section(summary, "check")
        rows.append({"name": f"{words}: in all", "latency": summary.get("total"), "check": check})
        parts = find_section(summary, "parts")
        rows += [{"name": f"{words}: {name}", "latency": parts[name], "check": {}} for name in parts]
        if find_section(summary, "following"):
            rows.append({"name": f"{words}: a later inspection", "latency": summary["following"], "check": {}})
    return make_table("From the start of a process to its first decision", SUMMARY_COLUMNS, rows)


def make_idle_table(record: Record) -> Markup:
    """Return the latencies of first images and of those one after another."""
    idle = find_section(record, "idle")
    rows: list[Row] = [
        {"name": words, "latency": find_section(idle, key), "check": find_section(idle, "check")}
        for key, words in IDLE_WORDS.items()
        if find_section(idle, key)
    ]
    return make_table("The first image after a pause", SUMMARY_COLUMNS, rows)


def list_row_remarks(rows: Sequence[Row], key: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return each remark under `key` ("notes", "warnings") with the names of the rows that have it."""
    found: dict[str, list[str]] = {}
    for row, name in zip(rows, names, strict=True):
        for sentence in list_sentences(row, key):
            found.setdefault(sentence, []).append(name)
    return found
