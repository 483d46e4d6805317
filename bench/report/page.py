"""The page of `ndp-rt bench report`: one section a record, one file, nothing from elsewhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ndp_rt.bench.read_records import StoredRecord, find_number, find_section, list_sentences
from ndp_rt.bench.report.accuracy_figure import draw_accuracies
from ndp_rt.bench.report.distributions import draw_distributions
from ndp_rt.bench.report.drawing import import_matplotlib
from ndp_rt.bench.report.figures import Drawn
from ndp_rt.bench.report.growth import AXIS_WORDS, draw_growth, find_axis
from ndp_rt.bench.report.markup import Markup, join_markup, make_element, make_list
from ndp_rt.bench.report.overview import is_wanted
from ndp_rt.bench.report.overview_section import OVERVIEW_ID, OVERVIEW_TITLE, make_overview_parts
from ndp_rt.bench.report.roofline import draw_roofline
from ndp_rt.bench.report.stage_figure import draw_stages
from ndp_rt.bench.report.start_figures import draw_cold, draw_idle
from ndp_rt.bench.report.style import STYLE
from ndp_rt.bench.report.tables import (
    list_row_remarks,
    make_cold_table,
    make_idle_table,
    make_row_tables,
    make_sweep_table,
)
from ndp_rt.bench.report.words import (
    MODES,
    describe_bundle,
    describe_machine,
    describe_settings,
    format_number,
    format_plain,
    format_ratio,
    name_rows,
)
from ndp_rt.evaluate.record import Record
from ndp_rt.files import write_atomically

# The page runs nothing and asks for nothing; a browser holds it to that.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
READING = (
    "p50, p90, p99: half, 90 % and 99 % of the queries took at most that long. cv: standard deviation over mean. "
    "Map error: the largest difference to PyTorch's fp32 map of the same images, and in brackets what is allowed. "
    "GFLOP: 10\u2079 operations of an image, a multiply-add counted as two. Share of the ceiling: of the rate that a "
    "matrix product reached through the same backend in the same run. (rep.): reported by others, on other data."
)


def write_report(stored: Sequence[StoredRecord], path: Path) -> None:
    """Write the page of records, at least one.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: the file could not be written.
    """
    write_atomically(path, make_page(stored).encode("utf-8"))


def make_page(stored: Sequence[StoredRecord]) -> str:
    """Return the page of records, at least one, as HTML.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    import_matplotlib()
    names = dict.fromkeys(str(find_section(one.record, "bundle").get("name") or "unnamed") for one in stored)
    title = "Inference time of " + ", ".join(names)
    contents = [make_element("a", _make_heading(one.record), href=f"#r{n}") for n, one in enumerate(stored, 1)]
    sections = [make_section(one, f"r{number}") for number, one in enumerate(stored, 1)]
    if is_wanted(stored):
        contents.insert(0, make_element("a", OVERVIEW_TITLE, href=f"#{OVERVIEW_ID}"))
        sections.insert(0, make_overview(stored))
    head = make_element(
        "head",
        make_element("meta", charset="utf-8"),
        make_element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        make_element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make_element("link", rel="icon", href="data:,"),
        make_element("title", title),
        make_element("style", Markup(STYLE)),
    )
    body = make_element(
        "body",
        make_element("h1", title),
        make_element("nav", make_list(list(contents)), aria_label="Records") if len(stored) > 1 else None,
        make_element("main", *sections),
        make_element("footer", READING),
    )
    return f"<!DOCTYPE html>\n{make_element('html', head, body, lang='en')}\n"


def make_overview(stored: Sequence[StoredRecord]) -> Markup:
    """Return the section that sets the rows of several records side by side."""
    parts, figures = make_overview_parts(stored)
    return make_element("section", *parts, *map(_make_figure, figures), id=OVERVIEW_ID)


def make_section(stored: StoredRecord, section_id: str) -> Markup:
    """Return the section of one record; every id inside begins with `section_id`."""
    record = stored.record
    rows: list[dict[str, Any]] = record.get("rows") or []
    mode = record["mode"]
    parts: list[Markup | None] = [
        make_element("h2", _make_heading(record)),
        *(make_element("p", sentence, class_="headline") for sentence in _list_headlines(record)),
        _make_warnings(record, rows),
        _make_terms(stored),
    ]
    if mode == "sweep":
        parts += [_make_figure(draw_growth(record, f"{section_id}-growth")), make_sweep_table(record)]
    elif mode == "cold":
        parts += [_make_figure(draw_cold(record, f"{section_id}-cold")), make_cold_table(record)]
    elif mode == "idle":
        parts += [_make_figure(draw_idle(record, f"{section_id}-idle")), make_idle_table(record)]
    if rows or mode == "latency":
        parts += [make_row_tables(record), _make_notes(rows)]
    parts.append(_make_absent(record))
    if rows:
        figures = [
            draw_distributions(rows, f"{section_id}-latency"),
            *draw_accuracies(rows, f"{section_id}-accuracy"),
            draw_stages(rows, f"{section_id}-stages"),
            draw_roofline(rows, f"{section_id}-roofline"),
        ]
        parts += [_make_figure(figure) for figure in figures]
    elif mode != "latency":
        words = "Latency distributions, accuracy, stage split and roofline are left out: this mode measures no rows."
        parts.append(make_element("p", words, class_="quiet"))
    parts.append(_make_details(record, rows))
    return make_element("section", *parts, id=section_id)


def _make_heading(record: Record) -> str:
    bundle = str(find_section(record, "bundle").get("name") or "unnamed")
    mode = MODES[record["mode"]]
    if record["mode"] == "sweep":
        mode += f" with {AXIS_WORDS.get(find_axis(record), find_axis(record)).split(',')[0]}"
    day = str(record.get("created") or "date unknown")[:10]
    return f"{bundle}: {mode}, {day}" + ("" if record.get("is_complete") else " (incomplete)")


def _list_headlines(record: Record) -> list[str]:
    """Return what the record says, in a sentence or two."""
    rows = record.get("rows") or []
    sentences = list_sentences(find_section(record, "sweep"), "words")
    idle = find_section(record, "idle")
    if find_number(idle, "pause_s") is not None:
        words = (
            f"After a pause of {format_plain(find_number(idle, 'pause_s') or 0.0)} s the first image takes "
            f"{format_number(find_number(idle, 'first', 'p50_ms'))} ms at the median; images one after another take "
            f"{format_number(find_number(idle, 'steady', 'p50_ms'))} ms"
        )
        ratio = find_section(idle, "ratio")
        sentences.append(f"{words}; ratio {format_ratio(ratio)}." if ratio else f"{words}.")
    totals = {
        key: find_number(find_section(find_section(record, "cold"), key), "total", "p50_ms") for key in ("hit", "miss")
    }
    if totals["hit"] is not None:
        words = f"From the start of a process to its first decision: {format_number(totals['hit'])} ms at the median"
        miss = "" if totals["miss"] is None else f", {format_number(totals['miss'])} ms where the engine is built first"
        sentences.append(f"{words} with the engine in the cache{miss}.")
        ratio = find_section(find_section(find_section(record, "cold"), "hit"), "first_ratio")
        if ratio:
            words = "the 95 % interval in brackets"
            sentences.append(f"The first image takes {format_ratio(ratio)} times as long as those after it, {words}.")
    if rows:
        sentences.append(_describe_first(rows[0], name_rows(rows)[0]))
        slower = [row for row in rows[1:] if find_number(row, "ratio", "median") is not None]
        if slower:
            row = min(slower, key=lambda one: find_number(one, "ratio", "median") or 0.0)
            sentences.append(
                f"The fastest of the others is {row['name']}: {format_ratio(row['ratio'])} times the time of "
                f"{row['ratio'].get('to') or 'the first row'}, the 95 % interval in brackets."
            )
    return sentences


def _describe_first(row: Mapping[str, Any], name: str) -> str:
    words = f"{name}: {format_number(find_number(row, 'latency', 'p50_ms'))} ms at the median"
    p99, rate = find_number(row, "latency", "p99_ms"), find_number(row, "images_per_s")
    if p99 is not None:
        words += f", {format_number(p99)} ms at p99"
    if rate is not None:
        words += f", {format_number(rate)} images/s"
    return f"{words}."


def _make_warnings(record: Record, rows: Sequence[Mapping[str, Any]]) -> Markup:
    sentences = list_sentences(record, "warnings")
    if not record.get("is_complete"):
        sentences.insert(0, "Incomplete: the run was ended early, and this is what was measured until then.")
    sentences += [
        f"{'; '.join(names)}: {sentence}"
        for sentence, names in list_row_remarks(rows, "warnings", name_rows(rows)).items()
    ]
    if not sentences:
        return make_element("p", "The run raised no warning.", class_="quiet")
    head = make_element("p", make_element("strong", f"{len(sentences)} warning{'' if len(sentences) == 1 else 's'}"))
    return make_element("div", head, make_list(sentences), class_="box warning", role="note")


def _make_terms(stored: StoredRecord) -> Markup:
    """Return what was measured, where and how, as a list of terms."""
    record = stored.record
    bundle = find_section(record, "bundle")
    versions = find_section(record, "versions")
    pairs: list[tuple[str, str]] = [
        ("Command", make_element("code", str(record.get("command") or "not recorded"))),
        ("Bundle", describe_bundle(bundle)),
    ]
    if find_section(bundle, "plain"):
        pairs.append(("Plain bundle", describe_bundle(find_section(bundle, "plain"))))
    pairs.append(("Machine", describe_machine(find_section(record, "machine"))))
    pairs += describe_settings(record)
    pairs.append(("Versions", ", ".join(f"{name} {versions[name]}" for name in versions if versions[name] is not None)))
    state = "complete" if record.get("is_complete") else "incomplete: ended early"
    pairs.append(("Made", f"{str(record.get('created') or 'date unknown').replace('T', ' ')}, {state}"))
    pairs.append(("Record", f"{stored.path.name}, line {stored.line}"))
    return make_element(
        "dl", *(join_markup(make_element("dt", term), make_element("dd", words)) for term, words in pairs if words)
    )


def _make_notes(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    notes = list_row_remarks(rows, "notes", name_rows(rows))
    if not notes:
        return None
    items = [f"{'; '.join(names)}: {sentence}" for sentence, names in notes.items()]
    return join_markup(make_element("h3", "Notes on rows"), make_list(items))


def _make_absent(record: Record) -> Markup:
    """Return what was left out or refused, with the reasons."""
    parts = []
    for key, heading in (("left_out", "Left out, for it cannot run here"), ("refused", "Refused")):
        found = find_section(record, key)
        if found:
            items = [join_markup(make_element("strong", str(name)), f": {found[name]}") for name in found]
            parts += [make_element("h3", heading), make_list(list(items))]
    return join_markup(*parts)


def _make_figure(drawn: Drawn) -> Markup:
    heading = make_element("h3", drawn.title)
    if drawn.svg is None:
        return join_markup(heading, make_element("p", drawn.words, class_="quiet"))
    key = make_element("ol", *(make_element("li", name) for name in drawn.key), class_="key") if drawn.key else None
    caption = make_element("figcaption", drawn.words) if drawn.words else None
    return join_markup(heading, make_element("figure", drawn.svg, key, caption))


def _make_details(record: Record, rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Return what else the record knows of each row, folded."""
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
        }
        words = "; ".join(
            f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in facts.items()
            if value is not None
        )
        if words:
            items.append(join_markup(make_element("strong", name), f": {words}"))
    rewrites = list_sentences(find_section(record, "bundle"), "rewrites")
    if rewrites:
        items.append(join_markup(make_element("strong", "Rewrites of the bundle"), f": {', '.join(rewrites)}"))
    if not items:
        return None
    return make_element("details", make_element("summary", "Further facts"), make_list(list(items)))
