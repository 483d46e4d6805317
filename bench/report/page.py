"""The page of `ndp-rt bench report`: one section a record, one file, nothing from elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number, find_section, list_sentences
from ndp_rt.bench.report.figures import (
    REMEDY,
    draw_accuracies,
    draw_distributions,
    draw_overview,
    draw_roofline,
    import_matplotlib,
)
from ndp_rt.bench.report.overview import Found, is_wanted, make_overview
from ndp_rt.bench.report.tables import list_row_remarks, list_tables, make_overview_table
from ndp_rt.bench.report.words import clean_text, describe, list_headlines, name_record, name_rows
from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate.record import Record
from ndp_rt.files import write_atomically

OVERVIEW_ID = "together"
OVERVIEW_TITLE = "All records together: accuracy against milliseconds"
FACTS = ("plan", "device", "threads", "check", "accuracy", "ceiling", "facts", "gpu")  # of a row, beside its figures


def write_report(stored: Sequence[StoredRecord], path: Path) -> None:
    """Write the page of records, at least one.

    Raises:
        MissingExtraError: matplotlib or Jinja2 is not installed.
        StorageError: the file could not be written.
    """
    write_atomically(path, make_page(stored).encode("utf-8"))


def make_page(stored: Sequence[StoredRecord]) -> str:
    """Return the page of records, at least one, as HTML.

    Raises:
        MissingExtraError: matplotlib or Jinja2 is not installed.
    """
    import_matplotlib()
    try:
        from jinja2 import Environment, FileSystemLoader
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=clean, keep_trailing_newline=True
    )
    names = dict.fromkeys(str(find_section(one.record, "bundle").get("name") or "unnamed") for one in stored)
    sections = [describe_section(one, f"r{number}") for number, one in enumerate(stored, 1)]
    overview = describe_overview(stored) if is_wanted(stored) else None
    contents = [(one["id"], one["heading"]) for one in ([overview] if overview else []) + sections]
    page: str = environment.get_template("page.html").render(
        title="Inference time of " + ", ".join(names), contents=contents, overview=overview, sections=sections
    )
    return page


def clean(value: Any) -> Any:
    """Return what a template shows with a mark for each character that a page cannot hold; markup stays as it is."""
    return clean_text(value) if type(value) is str else value


def describe_overview(stored: Sequence[StoredRecord]) -> dict[str, Any]:
    """Return the section that sets the rows of several records side by side."""
    overview = make_overview(stored)
    return {
        "id": OVERVIEW_ID,
        "heading": OVERVIEW_TITLE,
        "table": make_overview_table(overview) if overview.found else None,
        "left_out": [(reason, "; ".join(names)) for reason, names in overview.left_out.items()],
        "figures": draw_overview(overview) if overview.found else [],
    }


def describe_section(stored: StoredRecord, section_id: str) -> dict[str, Any]:
    """Return the section of one record."""
    record = stored.record
    rows: list[dict[str, Any]] = record.get("rows") or []
    found = [Found(stored=stored, row=row, name=name) for row, name in zip(rows, name_rows(rows), strict=True)]
    absent = (("left_out", "Left out, for it cannot run here"), ("refused", "Refused"))
    return {
        "id": section_id,
        "heading": name_record(record),
        "headlines": list_headlines(record),
        "warnings": list_warnings(record),
        "command": str(record.get("command") or "not recorded"),
        "terms": list_terms(stored),
        "mode": record["mode"],
        "has_rows": bool(rows),
        "tables": list_tables(record),
        "notes": list_row_remarks(rows, "notes"),
        "absent": [(heading, list(find_section(record, key).items())) for key, heading in absent],
        "figures": [draw_distributions(rows), *draw_accuracies(found), draw_roofline(rows)] if rows else [],
        "facts": [(one.name, describe({key: one.row.get(key) for key in FACTS})) for one in found],
    }


def list_warnings(record: Record) -> list[str]:
    """Return what may falsify a record's times, of the run and of its rows."""
    early = "Incomplete: the run was ended early, and this is what was measured until then."
    return [
        *([] if record.get("is_complete") else [early]),
        *list_sentences(record, "warnings"),
        *list_row_remarks(record.get("rows") or [], "warnings"),
    ]


def list_terms(stored: StoredRecord) -> list[tuple[str, str]]:
    """Return what was measured, where and how, as terms and their words."""
    record = stored.record
    parts = (("Bundle", "bundle"), ("Machine", "machine"), ("Settings", "settings"), ("Accuracy measured on", "data"))
    state = "complete" if record.get("is_complete") else "incomplete: ended early"
    return [
        *((term, describe(find_section(record, key))) for term, key in (*parts, ("Versions", "versions"))),
        ("Made", f"{str(record.get('created') or 'date unknown').replace('T', ' ')}, {state}"),
        ("Took", f"{find_number(record, 'elapsed_s') or 0:.0f} s"),
        ("Record", f"{stored.path.name}, line {stored.line}"),
    ]
