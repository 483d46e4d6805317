"""The section that sets several records side by side: table, figures, and what is left out."""

from collections.abc import Callable, Sequence
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number
from ndp_rt.bench.report.accuracy_figure import METRICS, OURS, find_front, is_reported
from ndp_rt.bench.report.figures import Drawn
from ndp_rt.bench.report.markup import Markup, join_markup, make_element, make_list
from ndp_rt.bench.report.overview import Found, Overview, draw_overview, find_source, make_overview
from ndp_rt.bench.report.tables import (
    Column,
    Row,
    make_table,
    show_accuracy,
    show_latency,
    show_name,
    show_ratio,
    show_text,
)
from ndp_rt.bench.report.words import DASH, format_error

OVERVIEW_ID = "together"
OVERVIEW_TITLE = "All records together: accuracy against milliseconds"
FRONT = "*"
CAPTION = f"One image by itself, the fastest first ({FRONT}: on the front that the figure draws)"


def show_error(row: Row) -> str:
    """Return the largest difference of maps; what is allowed stands in the record's own section."""
    return format_error(find_number(row, "check", "map_max_abs_difference"))


def show_starred(metric: str) -> Callable[[Row], str]:
    """Return what shows an accuracy, with FRONT where the row is on the front."""
    show = show_accuracy(metric)
    return lambda row: show(row) + (f" {FRONT}" if metric in row["front_metrics"] else "")


COLUMNS = (
    Column(heading="contender", show=show_name, is_text=True, is_kept=True),
    Column(heading="bundle", show=show_text("bundle_words"), is_text=True, is_kept=True),
    Column(heading="p50, ms", show=show_latency("p50_ms"), is_kept=True),
    Column(heading="image ROCAUC", show=show_starred("image_rocauc"), is_kept=True),
    Column(heading="AUPRO", show=show_starred("aupro"), is_kept=True),
    Column(heading="pixel ROCAUC", show=show_starred("pixel_rocauc")),
    Column(heading="accuracy on", show=show_text("source_words"), is_text=True, is_kept=True),
    Column(heading="map error", show=show_error, is_kept=True),
    Column(heading="times its run's first row", show=show_ratio),
    Column(heading="record", show=show_text("where_words"), is_text=True, is_kept=True),
    Column(heading="machine", show=show_text("machine_words"), is_text=True),
)


def make_overview_parts(stored: Sequence[StoredRecord]) -> tuple[list[Markup], list[Drawn]]:
    """Return the section's heading, table and lists, and the figures that follow."""
    overview = make_overview(stored)
    parts = [make_element("h2", OVERVIEW_TITLE)]
    if overview.found:
        rows = list_table_rows(overview)
        parts.append(make_table(CAPTION, COLUMNS, rows))
    else:
        words = "Left out: no record has a row that times one image by itself and has an accuracy."
        parts.append(make_element("p", words, class_="quiet"))
    if overview.left_out:
        items = [
            join_markup(make_element("strong", reason), f": {'; '.join(names)}")
            for reason, names in overview.left_out.items()
        ]
        parts.append(join_markup(make_element("h3", "Rows that are not compared"), make_list(list(items))))
    return parts, draw_overview(overview, OVERVIEW_ID) if overview.found else []


def list_table_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the rows of the table: a record's own, and in words what they need beside those of other records."""
    fronts = {metric: find_front_rows(overview, metric) for metric in METRICS}
    has_machines = len({one.machine for one in overview.found}) > 1
    rows = []
    for index, one in enumerate(overview.found):
        rows.append(
            {
                **one.row,
                "bundle_words": None if one.is_other else describe_owner(one),
                "front_metrics": [metric for metric, members in fronts.items() if index in members],
                "source_words": DASH if is_reported(one.row) else find_source(one).removeprefix("measured: "),
                "where_words": f"{one.where}, {one.created[:10]}",
                "machine_words": one.machine if has_machines else None,
            }
        )
    return rows


def describe_owner(one: Found) -> str:
    """Return a row's bundle and preset."""
    preset = one.bundle.get("preset")
    return str(one.bundle.get("name") or "unnamed") + (f" ({preset})" if preset else "")


def find_front_rows(overview: Overview, metric: str) -> set[int]:
    """Return which of our rows are on the front that the figure draws, by their places in `overview.found`."""
    places: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for index, one in enumerate(overview.found):
        p50, height = find_number(one.row, "latency", "p50_ms"), find_number(one.row, "accuracy", metric)
        if one.row.get("kind") == OURS and not is_reported(one.row) and p50 is not None and height is not None:
            places.setdefault((one.machine, find_source(one)), []).append((p50, height, index))
    members = set()
    for points in places.values():
        front = set(find_front([(x, y) for x, y, _ in points]))
        members |= {index for x, y, index in points if (x, y) in front}
    return members
