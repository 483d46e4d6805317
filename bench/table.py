"""A record of `ndp-rt bench` as tables on the terminal."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ndp_rt.bench.read_records import list_sentences
from ndp_rt.bench.report.tables import Table, list_row_remarks, list_tables, show_promise
from ndp_rt.bench.report.words import format_number, list_headlines, name_rows
from ndp_rt.evaluate.record import Record, order_stages


def print_record(console: Console, record: Record) -> None:
    """Print what was measured, what was not and why, and what may falsify it."""
    settings, bundle = record["settings"], record["bundle"]
    threads = "" if settings["threads"] is None else f", {settings['threads']} threads"
    _say(
        console,
        f"{bundle['name']} ({_describe_model(bundle)}), {settings['device']}{threads}; "
        f"inside the clock: {settings['inside_the_clock']}",
    )
    if record["rows"]:
        console.print(f"{settings['scenario']}: {settings['scenario_means']}", soft_wrap=True)
    for table in list_tables(record, is_short=True):
        console.print(make_table(table))
    for sentence in list_all_sentences(record):
        _say(console, sentence)


def _say(console: Console, sentence: str) -> None:
    console.print(_indent(sentence), soft_wrap=True, markup=False)


def _indent(text: str) -> str:
    """Return a text whose further lines, which a name brought, do not pass for lines of ours."""
    return text.replace("\n", "\n  ")


def _describe_model(bundle: Record) -> str:
    return f"preset {bundle['preset']}" + (f", w = {bundle['width']}" if bundle.get("width") else "")


def make_table(table: Table) -> RichTable:
    """Return a table that fits 80 columns and cuts no number."""
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        if column.is_text:
            shown.add_column(column.short or "", overflow="fold")
        else:
            shown.add_column(column.short or "", justify="right", no_wrap=True)
    for cells in table.rows:
        shown.add_row(*(escape(_indent(cell)) for cell in cells))
    return shown


def list_all_sentences(record: Record) -> Iterator[str]:
    """Return what stands below the tables."""
    rows = record["rows"]
    for row, name in zip(rows, name_rows(rows), strict=True):
        if "percentile" in row or "server" in row:
            yield f"{name}: {show_promise(row)}"
    for row, name in zip(rows, name_rows(rows), strict=True):
        stages = row.get("stages_ms") or {}
        if len(stages) > 1:
            parts = ", ".join(f"{stage} {format_number(stages[stage])}" for stage in order_stages(stages))
            yield f"{name}: an image's milliseconds: {parts}"
    if record["mode"] != "latency":
        yield from list_headlines(record)
    for kind in ("left_out", "refused"):
        for name, reason in record[kind].items():
            yield f"{name}: {kind.replace('_', ' ')}: {reason}"
    for kind in ("notes", "warnings"):
        for remark in list_row_remarks(rows, kind):
            yield f"{kind.removesuffix('s')}: {remark}"
    for text in list_sentences(record, "warnings"):
        yield f"warning: {text}"
