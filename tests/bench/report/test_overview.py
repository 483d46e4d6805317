"""Several records set side by side: which rows are compared, how they are told apart, and which are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.read_records import StoredRecord
from ndp_rt.bench.report.overview import NO_ACCURACY, Found, Overview, find_front_names, find_fronts, make_overview
from ndp_rt.bench.report.page import OVERVIEW_ID, make_page
from ndp_rt.bench.report.tables import list_overview_rows
from tests.bench.bench_records import make_cold_record, make_record, make_row
from tests.bench.report.page_reader import PageReader

FP32, PADIM = 2, 6  # of tests.bench.bench_records.RIVALS
PRECISIONS = {"fp32": (1.0, 0.97), "bf16": (0.5, 0.968), "int8": (0.3, 0.95), "mixed": (0.35, 0.966)}


def make_precision_rows(rng: np.random.Generator, scale: float, lift: float = 0.0) -> list[Any]:
    """Return a row of ours for each of PRECISIONS, `scale` times as slow and better by `lift`."""
    rows = []
    for precision, (times, area) in PRECISIONS.items():
        row = make_row(FP32, rng, name=f"ndp-rt openvino {precision}", precision=precision)
        row["latency"]["p50_ms"] = 60.0 * times * scale
        row["accuracy"] |= {"image_rocauc": area + lift, "aupro": area + lift - 0.01}
        rows.append(row)
    return rows


def make_bundle(preset: str, name: str) -> dict[str, Any]:
    return {"name": name, "preset": preset, "fingerprint": f"{preset}-{name}-0123456789", "family": "ndpnet"}


def store(*records: Any) -> list[StoredRecord]:
    return [StoredRecord(path=Path(f"run{n}.jsonl"), line=n, record=record) for n, record in enumerate(records, 1)]


def list_names(overview: Overview) -> set[str]:
    return {one.name for one in overview.found}


@pytest.fixture
def two_presets(rng: np.random.Generator) -> list[StoredRecord]:
    edge = make_record(make_precision_rows(rng, 1.0), bundle=make_bundle("edge", "fabric"))
    paper = make_record(make_precision_rows(rng, 10.0, 0.01), bundle=make_bundle("paper", "wide"))
    return store(edge, paper)


def test_rows_of_one_name_from_two_bundles_are_two_marks_with_two_names(two_presets: list[StoredRecord]) -> None:
    overview = make_overview(two_presets)
    assert len(overview.found) == 8 == len(list_names(overview))
    assert {f"ndp-rt openvino {one}, {preset}" for preset in ("edge", "paper") for one in PRECISIONS} == list_names(
        overview
    )
    assert not overview.left_out


def test_table_rows_keep_the_bundle_the_record_and_the_ratio_of_their_own_run(
    two_presets: list[StoredRecord],
) -> None:
    two_presets[1].record["rows"][1]["ratio"] = {"to": "ndp-rt openvino fp32", "median": 0.51}
    rows = {(row["bundle_words"], row["precision"]): row for row in list_overview_rows(make_overview(two_presets))}
    assert len(rows) == 8
    assert rows["fabric (edge)", "bf16"]["where_words"].startswith("run1.jsonl:1, 2026-11-23")
    assert rows["wide (paper)", "bf16"]["where_words"].startswith("run2.jsonl:2, ")
    assert rows["wide (paper)", "bf16"]["ratio"]["median"] == 0.51
    assert rows["fabric (edge)", "bf16"]["ratio"]["median"] == 2.31


def test_bundles_of_one_preset_are_told_apart_by_name_and_else_by_fingerprint(rng: np.random.Generator) -> None:
    records = [make_record([make_row(FP32, rng)], bundle=make_bundle("edge", name)) for name in ("a", "b")]
    assert list_names(make_overview(store(*records))) == {"ndp-rt openvino fp32, a", "ndp-rt openvino fp32, b"}
    for number, record in enumerate(records):
        record["bundle"] = {"name": "a", "preset": "edge", "fingerprint": f"{number}23456789"}
    assert list_names(make_overview(store(*records))) == {
        "ndp-rt openvino fp32, 023456",
        "ndp-rt openvino fp32, 123456",
    }


def test_ours_and_a_rival_of_the_same_backend_keep_different_names(rng: np.random.Generator) -> None:
    rows = [make_row(24, rng), make_row(3, rng)]  # ndp-rt's on ONNX Runtime, and ONNX Runtime by itself
    overview = make_overview(store(make_record(rows)))
    assert list_names(overview) == {"ndp-rt onnxruntime fp32", "onnxruntime fp32"}


def test_a_rival_that_was_fitted_to_other_images_is_another_row(rng: np.random.Generator) -> None:
    records = []
    for data in ("leather", "fabric"):
        row = make_row(PADIM, rng, facts={"weights": f"fitted to 100 images of {data}"})
        row["accuracy"]["source"] = f"measured: {data}"
        records.append(make_record([row]))
    assert list_names(make_overview(store(*records))) == {
        f"padim fp32, measured: {data}" for data in ("leather", "fabric")
    }


def test_other_machines_and_thread_counts_are_named_and_not_taken_for_a_second_measurement(
    rng: np.random.Generator,
) -> None:
    records = [make_record([make_row(FP32, rng, threads=threads)]) for threads in (1, 2)]
    assert list_names(make_overview(store(*records))) == {f"ndp-rt openvino fp32, threads {n}" for n in (1, 2)}
    records = [make_record([make_row(FP32, rng)], machine={"cpu": cpu, "core_count": 2}) for cpu in ("A", "B")]
    assert list_names(make_overview(store(*records))) == {f"ndp-rt openvino fp32, {cpu}, 2 cores" for cpu in "AB"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_measurements_of_one_row_the_later_one_counts(order: tuple[int, int], rng: np.random.Generator) -> None:
    records = [make_record([make_row(FP32, rng)], created=f"2026-11-2{day}T10:00:00+00:00") for day in (3, 4)]
    stored = store(*(records[index] for index in order))
    overview = make_overview(stored)
    assert [one.created[:10] for one in overview.found] == ["2026-11-24"]
    later, former = stored[order.index(1)], stored[order.index(0)]
    assert overview.left_out == {
        f"measured again later ({later.path.name}:{later.line})": (
            f"ndp-rt openvino fp32 ({former.path.name}:{former.line})",
        )
    }


def test_rows_without_accuracy_or_with_another_clock_are_left_out_with_the_reason(rng: np.random.Generator) -> None:
    rows = [
        make_row(0, rng),
        make_row(1, rng, accuracy=None),
        make_row(21, rng),
        make_row(2, rng, batch=8),
        make_row(2, rng, scenario="server"),
    ]
    overview = make_overview(store(make_record(rows)))
    assert [one.row["name"] for one in overview.found] == ["ndp-rt openvino bf16"]
    assert overview.left_out == {
        NO_ACCURACY: ("pytorch fp32 (run1.jsonl:1)",),
        "no accuracy is known": ("patchcore fp32 (run1.jsonl:1)",),
        "single-stream, batch 8: its latency is not that of one image by itself": (
            "ndp-rt openvino fp32 (run1.jsonl:1)",
        ),
        "server, batch 1: its latency is not that of one image by itself": ("ndp-rt openvino fp32 (run1.jsonl:1)",),
    }


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = [(30.0, 0.96), (20.0, 0.95), (55.0, 0.955), (60.0, 0.97), (60.0, 0.965), (80.0, 0.97)]
    (stored,) = store({})
    found = [
        Found(
            stored=stored,
            row={"kind": "ndp-rt", "latency": {"p50_ms": p50}, "accuracy": {"aupro": area, "source": "measured: a"}},
            name=f"{p50:.0f}, {area}",
        )
        for p50, area in points
    ]
    (front,) = find_fronts(found, "aupro")
    assert [one.name for one in front] == ["20, 0.95", "30, 0.96", "60, 0.97"]


def test_the_front_is_of_our_rows_alone_and_of_one_machine_and_data(two_presets: list[StoredRecord]) -> None:
    overview = make_overview(two_presets)
    # int8, mixed, bf16 and fp32 of each preset rise in time and area; paper's int8 is worse than edge's fp32.
    assert find_front_names(overview, "image_rocauc") == list_names(overview) - {"ndp-rt openvino int8, paper"}
    two_presets[1].record["machine"] = {"cpu": "another", "core_count": 4}
    overview = make_overview(two_presets)
    assert len(find_front_names(overview, "image_rocauc")) == 8
    rival = two_presets[0].record["rows"][2]  # int8, the fastest
    rival["kind"] = "same network"
    assert len(find_front_names(make_overview(two_presets), "image_rocauc")) == 7


def test_the_page_of_several_records_begins_with_the_overview(two_presets: list[StoredRecord]) -> None:
    reader = PageReader(make_page(two_presets))
    labels = [one["alt"] for one in reader.find("img")]
    assert labels[0].startswith("image ROCAUC against") and labels[1].startswith("AUPRO against")
    assert "ndp-rt openvino mixed, edge 0.966 at 21.0 ms" in labels[0]
    assert "ndp-rt openvino int8, paper 0.950 at 180 ms" in labels[1]
    assert "ratios hold within a run only" in reader.text
    assert "0.966 *" in [data for tag, data in reader.texts if tag == "td"]


@pytest.mark.nightly
def test_accuracies_on_different_data_are_never_in_one_figure(two_presets: list[StoredRecord]) -> None:
    for row in two_presets[1].record["rows"]:
        row["accuracy"]["source"] = "measured: asphalt"
    labels = [one["alt"] for one in PageReader(make_page(two_presets)).find("img")]
    assert "paper" not in labels[0] and "edge" not in labels[2]


def test_one_record_with_rows_needs_no_overview(two_presets: list[StoredRecord], rng: np.random.Generator) -> None:
    assert OVERVIEW_ID not in PageReader(make_page([two_presets[0], *store(make_cold_record(rng))])).ids


def test_records_without_any_accuracy_say_so(rng: np.random.Generator) -> None:
    page = make_page(store(*(make_record([make_row(0, rng, accuracy=None)]) for _ in range(2))))
    assert "no record has a row that times one image by itself and has an accuracy" in PageReader(page).text
