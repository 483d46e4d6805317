"""The page: whole, safe, without addresses, and with every figure that has data."""

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ndp_rt.bench.read_records import StoredRecord
from ndp_rt.bench.report.page import make_page
from tests.bench.bench_records import (
    make_idle_record,
    make_latency_record,
    make_record,
    make_records_of_all_modes,
    make_row,
)
from tests.bench.report.page_reader import PageReader

FIGURES = ("Latency distributions", "Speed and accuracy: image ROCAUC", "Speed and accuracy: AUPRO", "Roofline")
IMAGE = "data:image/svg+xml;base64,"


def make(*records: Any) -> str:
    stored = [StoredRecord(path=Path("a.jsonl"), line=n, record=record) for n, record in enumerate(records, 1)]
    return make_page(stored)


def check_safe(page: str) -> PageReader:
    """Fail where a tag is unbalanced, an id doubled or unknown, or anything points out of the page."""
    reader = PageReader(page)
    ids = set(reader.ids)
    assert len(ids) == len(reader.ids)
    assert not {tag for tag, _ in reader.tags} & {"script", "iframe", "object", "embed", "image", "foreignobject"}
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and (name == "alt" or ("http:" not in value and "https:" not in value))
        for target in (attributes[name] for name in ("href", "src") if name in attributes):
            is_image = target.startswith(IMAGE)
            assert is_image or target == "data:," or (target[0] == "#" and target[1:] in ids)
            if is_image:  # what a browser shows as an image runs nothing and asks for nothing
                ElementTree.fromstring(base64.b64decode(target.removeprefix(IMAGE)))
    styles = "".join(data for tag, data in reader.texts if tag == "style")
    assert "url(" not in styles and "@import" not in styles
    return reader


def list_titles(reader: PageReader) -> tuple[str, ...]:
    return tuple(data for tag, data in reader.texts if tag == "h3" and data != "Notes on rows")


def test_a_page_of_all_modes_is_whole_and_points_nowhere(rng: np.random.Generator) -> None:
    reader = check_safe(make(*make_records_of_all_modes(rng)))
    assert list_titles(reader) == FIGURES
    assert len(reader.find("img")) == len(FIGURES) and all(one["alt"] for one in reader.find("img"))
    assert [one["href"] for one in reader.find("a")] == [f"#r{n}" for n in range(1, 8)]


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("row_count", [1, 2, 6, 25])
def test_every_row_is_named_in_tables_and_figures(row_count: int, rng: np.random.Generator) -> None:
    record = make_latency_record(rng, row_count)
    reader = check_safe(make(record))
    assert list_titles(reader) == FIGURES
    labels = dict(zip(FIGURES, (one["alt"] for one in reader.find("img")), strict=True))
    split = sum("stages_ms" in row for row in record["rows"])
    assert sum(tag == "caption" for tag, _ in reader.tags) == (3 if split else 2)
    for row in record["rows"]:
        times = 3 if "stages_ms" in row else 2
        assert sum(data == row["name"] for tag, data in reader.texts if tag == "th") == times
        assert row["name"] in labels["Latency distributions"] and row["name"] in labels["Roofline"]


def test_what_comes_from_a_record_is_text(rng: np.random.Generator) -> None:
    evil = '<script>alert("1")</script> & $x_1$ \x00\ud800 url(#a) <b id="r1">'
    row = make_row(0, rng, name=evil, notes=[evil], warnings=[evil], facts={evil: evil}, stages_source=evil)
    row["stages_ms"] = {evil: 3.0}
    row["accuracy"]["source"] = evil
    other = make_row(1, rng, ratio={"to": evil, "median": 2.0, "low": 1.9, "high": 2.1})
    record = make_record(
        [row, other], command=evil, left_out={evil: evil}, refused={evil: evil}, warnings=[evil], created=evil
    )
    for section in ("bundle", "machine", "settings", "versions", "data"):
        record[section] = {key: evil for key in record[section]}
    record["machine"]["gpu"] = {"name": evil}
    page = make(record)
    page.encode("utf-8")
    reader = check_safe(page)
    shown = evil.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert sum(data == shown for tag, data in reader.texts if tag == "th") == 4  # three tables, and a stage
    assert shown in [data for tag, data in reader.texts if tag == "code"]


def test_a_figure_without_data_is_left_out_with_a_sentence(rng: np.random.Generator) -> None:
    bare: dict[str, Any] = {"accuracy": None, "stages_ms": None, "ceiling": None}
    reader = check_safe(make(make_record([make_row(0, rng, **bare), make_row(1, rng, **bare)])))
    assert len(reader.find("img")) == 1
    for sentence in (
        "Left out: no row has an accuracy. Run `ndp-rt bench` with --data DIR to measure it.",
        "Left out: no ceiling was measured.",
    ):
        assert sentence in reader.text


def test_a_row_with_nothing_but_its_median_has_its_place(rng: np.random.Generator) -> None:
    reader = check_safe(make(make_record([{"name": "bare", "latency": {"p50_ms": 3.25}}], settings={}, machine={})))
    assert "3.25" in [data for tag, data in reader.texts if tag == "td"]
    assert "A row without a line has only its percentiles in the record." in reader.text


def test_a_record_without_rows_says_so() -> None:
    reader = check_safe(make(make_record(is_complete=False)))
    assert "No row was measured." in reader.text
    assert "Incomplete: the run was ended early, and this is what was measured until then." in reader.text
    assert not reader.find("img")


def test_other_modes_have_their_numbers_in_a_table(rng: np.random.Generator) -> None:
    reader = check_safe(make(make_idle_record(rng)))
    assert [data for tag, data in reader.texts if tag == "caption"] == [
        "The first image after a pause",
        "Against later ones, and errors",
    ]


def test_the_stages_stand_in_a_table_in_an_images_order(rng: np.random.Generator) -> None:
    row = make_row(0, rng, stages_ms={"engine": 7.0, "preprocess": 1.25, "mine": 3.0})
    reader = check_safe(make(make_record([row])))
    headings = [data for tag, data in reader.texts if tag == "th"]
    assert headings[headings.index("preprocess") :][:3] == ["preprocess", "engine", "mine"]
    assert {"1.25", "7.00", "3.00"} <= {data for tag, data in reader.texts if tag == "td"}


def test_warnings_stand_in_a_box_and_name_their_rows(rng: np.random.Generator) -> None:
    rows = [make_row(index, rng, warnings=["unstable: rounds differ"]) for index in (0, 1)]
    reader = check_safe(make(make_record(rows, warnings=["other load: 1.2 cores"])))
    assert "2 warnings" in reader.text
    assert "ndp-rt openvino bf16; pytorch fp32: unstable: rounds differ" in reader.text
    assert sum(one.get("class") == "box" for one in reader.find("div")) == 1


def test_left_out_and_refused_rows_are_listed_with_their_reason(rng: np.random.Generator) -> None:
    record = make_latency_record(
        rng, 1, left_out={"onnxruntime-cuda": "needs a GPU"}, refused={"mkd": "answered wrongly"}
    )
    text = make(record)
    assert "<strong>onnxruntime-cuda</strong>: needs a GPU" in text
    assert "<strong>mkd</strong>: answered wrongly" in text


def test_rows_that_differ_in_batch_are_told_apart(rng: np.random.Generator) -> None:
    reader = check_safe(make(make_record([make_row(0, rng, batch=batch) for batch in (1, 8)])))
    label = reader.find("img")[0]["alt"]
    assert "ndp-rt openvino bf16, batch 1" in label and "ndp-rt openvino bf16, batch 8" in label


@pytest.mark.nightly
def test_the_same_records_make_the_same_page() -> None:
    records = make_records_of_all_modes(np.random.default_rng(1))
    assert make(*records) == make(*records)


def test_the_table_holds_the_numbers_of_the_record(rng: np.random.Generator) -> None:
    row = make_row(1, rng, images_per_s=0.8765, peak_memory_bytes=3 * 2**30)
    row["latency"] |= {"p50_ms": 1234.5, "p99_ms": 0.04567, "cv": 0.0512, "count": 12345}
    row["percentile"] = {"share": 0.99, "estimate_ms": 5.0, "query_count": 40, "needed_count": 662, "is_enough": False}
    row["ceiling"]["share"] = 0.5
    row["check"]["map_max_abs_difference"] = 2.5e-6
    cells = [data for tag, data in check_safe(make(make_record([row]))).texts if tag == "td"]
    wanted = {"1,234", "0.0457", "5.1\u00a0%", "12,345", "0.876", "3.00 GiB", "50.0\u00a0%", "2.31 (2.28 to 2.35)"}
    assert wanted | {"p99 5.00 ms, no bound (40 of 662 queries)", "2.5e-06 (\u2264 0.0001)"} <= set(cells)
