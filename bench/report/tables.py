"""Tables of a record's rows and points, for the page and, with their `short` columns, for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section, list_sentences
from ndp_rt.bench.report.overview import METRICS, Overview, describe_owner, find_front_names, is_reported
from ndp_rt.bench.report.words import (
    AXIS_WORDS,
    COLD_WORDS,
    DASH,
    describe_percentile,
    describe_server,
    format_accuracy,
    format_bytes,
    format_error,
    format_number,
    format_ratio,
    format_share,
    name_rows,
)
from ndp_rt.evaluate.record import Record, order_stages

Row = Mapping[str, Any]
Show = Callable[[Row], str]
FRONT = "*"
FIRST_TITLES = {
    "cold": "From the start of a process to its first decision",
    "idle": "The first image after a pause",
}
FIRST = "first inspection"  # of a cold start's parts


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading and what a row has under it.

    Attributes:
        short: the heading on a terminal; None: not shown there.
        is_text: set to the left.
        is_kept: shown where no row has any.
    """

    heading: str
    show: Show
    short: str | None = None
    is_text: bool = False
    is_kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table's columns and its rows' cells."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def make_table(caption: str, columns: Sequence[Column], rows: Sequence[Row], *, is_short: bool = False) -> Table:
    """Return a table; a column that would hold dashes alone is left out unless it is kept."""
    asked = [column for column in columns if not is_short or column.short is not None]
    shown = [(column, [column.show(row) for row in rows]) for column in asked]
    shown = [(column, cells) for column, cells in shown if column.is_kept or any(cell != DASH for cell in cells)]
    cells = [cells for _, cells in shown]
    return Table(caption=caption, columns=[column for column, _ in shown], rows=list(zip(*cells, strict=True)))


def show_number(*keys: str) -> Show:
    """Return what shows a number, such as one of the latency."""
    return lambda row: format_number(find_number(row, *keys))


def show_text(key: str) -> Show:
    """Return what shows a field as it is."""
    return lambda row: DASH if row.get(key) is None else str(row[key])


def show_bytes(key: str) -> Show:
    """Return what shows an amount of memory."""
    return lambda row: format_bytes(find_number(row, key))


def show_accuracy(key: str) -> Show:
    """Return what shows an accuracy, whether others reported it, and FRONT where the row is on the front."""

    def show(row: Row) -> str:
        value = find_number(row, "accuracy", key)
        words = format_accuracy(value) + (" (rep.)" if value is not None and is_reported(row) else "")
        return words + (f" {FRONT}" if key in row.get("front_metrics", ()) else "")

    return show


def show_check(row: Row) -> str:
    """Return the largest difference of maps, and what is allowed where that is known."""
    words, allowed = show_error(row), find_number(row, "check", "allowed")
    return words if allowed is None else f"{words} (\u2264 {allowed:.1g})"


def show_error(row: Row) -> str:
    """Return the largest difference of maps, or of scores where those were compared."""
    found = [find_number(row, "check", f"{what}_max_abs_difference") for what in ("map", "score")]
    return format_error(found[1] if found[0] is None else found[0])


def show_count(row: Row) -> str:
    """Return how many queries were timed."""
    count = find_number(row, "latency", "count")
    return DASH if count is None else f"{count:,.0f}"


def show_ratio(row: Row) -> str:
    """Return the ratio to the first row."""
    return format_ratio(find_section(row, "ratio"))


def show_promise(row: Row) -> str:
    """Return MLPerf's percentile, and what a server scenario came to."""
    server = find_section(row, "server")
    percentile = describe_percentile(find_section(row, "percentile"))
    return f"{percentile}; {describe_server(server)}" if server else percentile


NAME = Column(heading="name", show=show_text("name"), short="name", is_text=True, is_kept=True)
BATCH = Column(heading="batch", show=show_text("batch"), short="batch")
P50 = Column(heading="p50, ms", show=show_number("latency", "p50_ms"), short="p50 ms", is_kept=True)
P90 = Column(heading="p90, ms", show=show_number("latency", "p90_ms"), short="p90")
P99 = Column(heading="p99, ms", show=show_number("latency", "p99_ms"), short="p99")
MAX = Column(heading="max, ms", show=show_number("latency", "max_ms"))
MEAN = Column(heading="mean, ms", show=show_number("latency", "mean_ms"))
CV = Column(heading="cv", show=lambda row: format_share(find_number(row, "latency", "cv"), 2), short="cv")
RATE = Column(heading="images/s", show=show_number("images_per_s"), short="images/s")
ACCURACIES = tuple(
    Column(heading=METRICS[key], show=show_accuracy(key), short=METRICS[key])
    for key in ("image_rocauc", "pixel_rocauc", "aupro")
)
TIME_COLUMNS = (
    NAME,
    BATCH,
    Column(heading="scenario", show=show_text("scenario"), is_text=True),
    P50,
    P90,
    P99,
    RATE,
    Column(heading="time over the first row's (95 % interval)", show=show_ratio, short="x first (95 %)"),
    Column(heading="map error", show=show_check, is_kept=True),
    *ACCURACIES,
)
WORK_COLUMNS = (
    NAME,
    BATCH,
    Column(heading="queries", show=show_count),
    MEAN,
    MAX,
    CV,
    Column(heading="MLPerf's percentile (\u2264: at 99 % confidence)", show=show_promise, is_text=True),
    Column(heading="GFLOP an image", show=show_number("gflop"), short="GFLOP"),
    Column(heading="MB an image", show=show_number("megabytes")),
    Column(
        heading="share of the ceiling",
        show=lambda row: format_share(find_number(row, "ceiling", "share")),
        short="ceiling",
    ),
    Column(heading="peak memory", show=show_bytes("peak_memory_bytes"), short="memory"),
    Column(heading="GPU memory", show=show_bytes("gpu_memory_bytes"), short="on the GPU"),
)
ERROR = Column(heading="map error", show=show_error, short="map error")
OVERVIEW_COLUMNS = (
    NAME,
    Column(heading="bundle", show=show_text("bundle_words"), is_text=True, is_kept=True),
    P50,
    *ACCURACIES,
    Column(heading="accuracy on", show=show_text("source_words"), is_text=True, is_kept=True),
    ERROR,
    Column(heading="times its run's first row", show=show_ratio),
    Column(heading="record", show=show_text("where_words"), is_text=True, is_kept=True),
    Column(heading="machine", show=show_text("machine_words"), is_text=True),
)
SUMMARY_COLUMNS = (
    Column(heading="what", show=show_text("name"), short="what", is_text=True),
    Column(heading="count", show=show_count, short="count"),
    P50,
    P90,
    P99,
    MAX,
    MEAN,
    CV,
)
CHECK_COLUMNS = (
    SUMMARY_COLUMNS[0],
    Column(heading="times a later one (95 % interval)", show=show_ratio, short="x later (95 %)"),
    Column(heading="error of map or score", show=show_check, short="error"),
)


def list_tables(record: Record, *, is_short: bool = False) -> list[Table]:
    """Return a record's tables: those of its mode, and its rows' times, work and, on a terminal, accuracy."""
    mode, rows = record["mode"], record.get("rows") or []
    found: list[tuple[str, Sequence[Column], Sequence[Row]]] = []
    if mode == "sweep":
        points = find_section(record, "sweep").get("points") or []
        found.append(("Points of the sweep", list_sweep_columns(record), points))
    elif mode in ("cold", "idle"):
        firsts = list_cold_rows(find_section(record, "cold")) if mode == "cold" else list_idle_rows(record["idle"])
        found.append((FIRST_TITLES[mode], SUMMARY_COLUMNS, firsts))
        checked = [row for row in firsts if row.get("ratio") or row.get("check")]
        found.append(("Against later ones, and errors", CHECK_COLUMNS, checked))
    if is_short:
        known = {row["name"]: row for row in rows if row.get("accuracy")}
        found.append(("Time", [one for one in TIME_COLUMNS if one not in ACCURACIES], rows))
        found.append(("Error, work and memory", [NAME, BATCH, ERROR, *WORK_COLUMNS[2:]], rows))
        found.append(("Accuracy", [NAME, *ACCURACIES], [*known.values()]))
    else:
        split = [row for row in rows if row.get("stages_ms")]
        found.append(("Time, error and accuracy", TIME_COLUMNS, rows))
        found.append(("Spread, work and memory", WORK_COLUMNS, rows))
        found.append(("Where an image's time goes, ms", list_stage_columns(split), split))
    return [make_table(title, columns, shown, is_short=is_short) for title, columns, shown in found if shown]


def list_stage_columns(rows: Sequence[Row]) -> list[Column]:
    """Return a column for each stage that a row has, in an image's order, and how they were measured."""
    stages = order_stages(dict.fromkeys(str(stage) for row in rows for stage in find_section(row, "stages_ms")))
    columns = [Column(heading=stage, show=show_number("stages_ms", stage)) for stage in stages]
    source = Column(heading="how it was measured", show=show_text("stages_source"), is_text=True)
    return [NAME, BATCH, *columns, source]


def list_sweep_columns(record: Record) -> list[Column]:
    """Return the columns of a sweep's points."""
    axis = str(find_section(record, "sweep").get("axis") or "value")
    threads = [] if axis == "threads" else [Column(heading="threads", show=show_text("threads"))]
    return [
        Column(heading=AXIS_WORDS.get(axis, axis), show=show_text("value"), short=axis, is_text=True),
        Column(heading="series", show=show_text("series"), short="series", is_text=True),
        *threads,
        RATE,
        P50,
        P90,
        P99,
        CV,
        Column(heading="efficiency (linear: 1)", show=show_number("efficiency"), short="efficiency"),
        Column(heading="map error", show=show_check),
    ]


def list_cold_rows(cold: Mapping[str, Any]) -> list[Row]:
    """Return the latencies of whole starts and of their parts as rows."""
    rows: list[Row] = []
    for key, words in COLD_WORDS.items():
        found = find_section(cold, key)
        if not found:
            continue
        rows.append({"name": f"{words}: in all", "latency": found.get("total"), "check": find_section(found, "check")})
        for name, latency in find_section(found, "parts").items():
            ratio = find_section(found, "first_ratio") if name == FIRST else {}
            rows.append({"name": f"{words}: {name}", "latency": latency, "ratio": ratio})
        if find_section(found, "following"):
            rows.append({"name": f"{words}: a later inspection", "latency": found["following"]})
    return rows


def list_idle_rows(idle: Mapping[str, Any]) -> list[Row]:
    """Return the latencies of first images and of those one after another as rows."""
    first: Row = {
        "name": f"first after {idle.get('pause_s')} s",
        "latency": idle.get("first"),
        "ratio": idle.get("ratio"),
    }
    return [first, {"name": "one after another", "latency": idle.get("steady"), "check": idle.get("check")}]


def make_overview_table(overview: Overview) -> Table:
    """Return the rows of several records with what they need beside each other, the fastest first."""
    caption = f"One image by itself, the fastest first ({FRONT}: on the front that the figure draws)"
    return make_table(caption, OVERVIEW_COLUMNS, list_overview_rows(overview))


def list_overview_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the rows of the table: a record's own, and in words what they need beside those of other records."""
    fronts = {metric: find_front_names(overview, metric) for metric in METRICS}
    has_machines = len({one.machine for one in overview.found}) > 1
    return [
        {
            **one.row,
            "bundle_words": describe_owner(one) if one.bundle else None,
            "front_metrics": [metric for metric, members in fronts.items() if one.name in members],
            "source_words": DASH if is_reported(one.row) else one.source.removeprefix("measured: "),
            "where_words": f"{one.where}, {one.created[:10]}",
            "machine_words": one.machine if has_machines else None,
        }
        for one in overview.found
    ]


def list_row_remarks(rows: Sequence[Row], key: str) -> list[str]:
    """Return each remark under `key` ("notes", "warnings") behind the names of the rows that have it."""
    found: dict[str, list[str]] = {}
    for row, name in zip(rows, name_rows(rows), strict=True):
        for sentence in list_sentences(row, key):
            found.setdefault(sentence, []).append(name)
    return [f"{'; '.join(names)}: {sentence}" for sentence, names in found.items()]
