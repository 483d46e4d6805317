"""The page of `ndp-rt bench report`: one section a record, one file, nothing from elsewhere."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_section, list_sentences
from ndp_rt.bench.report.accuracy_figure import draw_accuracies
from ndp_rt.bench.report.distributions import draw_distributions
from ndp_rt.bench.report.drawing import FORBIDDEN, REMEDY, import_matplotlib
from ndp_rt.bench.report.growth import draw_growth
from ndp_rt.bench.report.overview import draw_overview, is_wanted, make_overview
from ndp_rt.bench.report.roofline import draw_roofline
from ndp_rt.bench.report.stage_figure import draw_stages
from ndp_rt.bench.report.start_figures import draw_cold, draw_idle
from ndp_rt.bench.report.tables import list_row_remarks, list_tables, make_overview_table
from ndp_rt.bench.report.words import (
    describe_bundle,
    describe_machine,
    describe_settings,
    list_headlines,
    name_record,
    name_rows,
)
from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate.record import Record
from ndp_rt.files import write_atomically

OVERVIEW_ID = "together"
OVERVIEW_TITLE = "All records together: accuracy against milliseconds"
MODE_FIGURES = {
    "sweep": lambda record, start: draw_growth(record, f"{start}-growth"),
    "cold": lambda record, start: draw_cold(record, f"{start}-cold"),
    "idle": lambda record, start: draw_idle(record, f"{start}-idle"),
}
Row = Mapping[str, Any]


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
    return re.sub(FORBIDDEN, "\ufffd", value) if type(value) is str else value


def describe_overview(stored: Sequence[StoredRecord]) -> dict[str, Any]:
    """Return the section that sets the rows of several records side by side."""
    overview = make_overview(stored)
    return {
        "id": OVERVIEW_ID,
        "heading": OVERVIEW_TITLE,
        "table": make_overview_table(overview) if overview.found else None,
        "left_out": [(reason, "; ".join(names)) for reason, names in overview.left_out.items()],
        "figures": draw_overview(overview, OVERVIEW_ID) if overview.found else [],
    }


def describe_section(stored: StoredRecord, section_id: str) -> dict[str, Any]:
    """Return the section of one record; every id inside begins with `section_id`."""
    record, mode = stored.record, stored.record["mode"]
    rows: list[dict[str, Any]] = record.get("rows") or []
    figures = []
    if rows:
        figures = [
            draw_distributions(rows, f"{section_id}-latency"),
            *draw_accuracies(rows, f"{section_id}-accuracy"),
            draw_stages(rows, f"{section_id}-stages"),
            draw_roofline(rows, f"{section_id}-roofline"),
        ]
    absent = (("left_out", "Left out, for it cannot run here"), ("refused", "Refused"))
    return {
        "id": section_id,
        "heading": name_record(record),
        "headlines": list_headlines(record),
        "warnings": list_warnings(record),
        "command": str(record.get("command") or "not recorded"),
        "terms": list_terms(stored),
        "mode": mode,
        "has_rows": bool(rows),
        "mode_figures": [MODE_FIGURES[mode](record, section_id)] if mode in MODE_FIGURES else [],
        "tables": list_tables(record),
        "notes": list_row_remarks(rows, "notes"),
        "absent": [(heading, list(find_section(record, key).items())) for key, heading in absent],
        "figures": figures,
        "facts": list_facts(record, rows),
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
    bundle, versions = find_section(record, "bundle"), find_section(record, "versions")
    state = "complete" if record.get("is_complete") else "incomplete: ended early"
    plain = find_section(bundle, "plain")
    return [
        ("Bundle", describe_bundle(bundle)),
        ("Plain bundle", describe_bundle(plain) if plain else ""),
        ("Machine", describe_machine(find_section(record, "machine"))),
        *describe_settings(record),
        ("Versions", ", ".join(f"{name} {versions[name]}" for name in versions if versions[name] is not None)),
        ("Made", f"{str(record.get('created') or 'date unknown').replace('T', ' ')}, {state}"),
        ("Record", f"{stored.path.name}, line {stored.line}"),
    ]


def list_facts(record: Record, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return what else the record knows of each row."""
    items = []
    for row, name in zip(rows, name_rows(rows), strict=True):
        facts = {
            "plan": row.get("plan"),
            "device": row.get("device"),
            "threads": row.get("threads"),
            "checked against": find_section(row, "check").get("against"),
            "accuracy": find_section(row, "accuracy").get("source"),
            "ceiling": find_section(row, "ceiling").get("note"),
            **find_section(row, "facts"),
            **find_section(row, "gpu"),
        }
        words = "; ".join(
            f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in facts.items()
            if value is not None
        )
        items += [(name, words)] if words else []
    rewrites = list_sentences(find_section(record, "bundle"), "rewrites")
    return items + ([("Rewrites of the bundle", ", ".join(rewrites))] if rewrites else [])
