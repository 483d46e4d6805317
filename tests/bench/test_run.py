"""A whole benchmark: with the tiny bundle through real engines, and with processes whose times are given."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench import run as run_module
from ndp_rt.bench.explain import Explainer
from ndp_rt.bench.report.words import format_number
from ndp_rt.bench.request import BenchRequest
from ndp_rt.bench.run import Bench, write_golden_files
from ndp_rt.bench.table import print_record
from ndp_rt.bench.timed.spec import TimedSpec
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.images.read import read_image
from tests.bench.fake_process import make_process
from tests.bricks import BRICKS

FIELDS = {"name", "latency", "latencies_ms", "check", "images_per_s", "parts_ms", "peak_memory_bytes", "gflop"}


def quiet(line: str) -> None:
    """Progress is for people."""


def start(bundle: Path, **changes: Any) -> Bench:
    return Bench(BenchRequest(bundle=bundle, threads=1, **changes), "ndp-rt bench x", quiet)


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds and is not asked about."""
    for name in ("measure_ceilings", "compare_ceilings", "explain_work"):
        monkeypatch.setattr(Explainer, name, lambda self, *values: None)


@pytest.mark.usefixtures("no_probes")
class TestWithGivenTimes:
    def prepare(self, monkeypatch: pytest.MonkeyPatch, processes: dict[str, Any | Exception]) -> list[str]:
        opened: list[str] = []

        def open_process(spec: TimedSpec, paths: Any, tell: Any) -> Any:
            opened.append(spec.name)
            found = processes[spec.name]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(run_module, "open_process", open_process)
        return opened

    def test_a_rival_that_fails_or_is_missing_leaves_the_others(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        self.prepare(
            monkeypatch,
            {
                "ndp-rt openvino fp32": make_process("ndp-rt openvino fp32", 10.0),
                "ndp-rt openvino bf16": EngineError("disagrees"),
                "onnxruntime fp32": make_process("onnxruntime fp32", 20.0, kind="same network", fails_at=2),
                "openvino-plain fp32": MissingExtraError("pip install it"),
            },
        )
        bench = start(tiny_bundle, seconds=1.0, against=("ndp-rt:bf16", "onnxruntime", "openvino-plain"))
        bench.measure_latencies()
        record = bench.record
        assert [row["name"] for row in record["rows"]] == ["ndp-rt openvino fp32"]
        assert record["refused"] == {
            "ndp-rt openvino bf16": "disagrees",
            "onnxruntime fp32": "its process ended by signal 11",
        }
        assert record["left_out"] == {"openvino-plain fp32": "pip install it"}
        assert record["is_complete"]
        json.dumps(record, allow_nan=False)

    def test_an_interrupted_run_is_recorded_as_far_as_it_came_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        ours = make_process("ndp-rt openvino fp32", 10.0)
        rival = make_process("onnxruntime fp32", 20.0, kind="same network", stops_at=3)
        self.prepare(monkeypatch, {one.name: one for one in (ours, rival)})
        bench = start(tiny_bundle, seconds=1.0, against=("onnxruntime",))
        with pytest.raises(KeyboardInterrupt):
            bench.measure_latencies()
        record = bench.record
        assert not record["is_complete"]
        assert [(row["name"], len(row["round_p50_ms"])) for row in record["rows"]] == [
            ("ndp-rt openvino fp32", 3),
            ("onnxruntime fp32", 3),
        ]
        assert record["rows"][1]["ratio"]["median"] == 2.0
        assert ours.is_closed and rival.is_closed

    def test_other_networks_meet_ours_again_each_by_itself(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[train]'")
        ours = make_process("ndp-rt openvino fp32", lambda turn: 10.0 if turn < 10 else 20.0)
        others = [make_process(f"{name} fp32", 40.0, kind="other network") for name in ("padim", "vae")]
        opened = self.prepare(monkeypatch, {one.name: one for one in (ours, *others)})
        bench = start(tiny_bundle, seconds=1.0, against=("padim", "vae"))
        bench.measure_latencies()
        assert opened == ["ndp-rt openvino fp32", "padim fp32", "vae fp32"]
        rows = {row["name"]: row for row in bench.record["rows"]}
        assert list(rows) == opened
        # Ours had slowed down by then, and the ratio is of the rounds that both took part in.
        assert rows["padim fp32"]["ratio"]["median"] == 2.0
        assert rows["ndp-rt openvino fp32"]["latency"]["p50_ms"] == 10.0

    def test_a_server_says_at_which_rate_the_bound_held(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        self.prepare(monkeypatch, {"ndp-rt openvino fp32": make_process("ndp-rt openvino fp32", 10.0)})
        bench = start(tiny_bundle, seconds=30.0, scenario="server")
        bench.measure_latencies()
        (row,) = bench.record["rows"]
        assert row["server"]["is_met"] and row["server"]["latency_bound_ms"] == 30.0
        assert row["percentile"]["share"] == 0.99

    def test_servers_keep_one_bound_and_their_latencies_at_different_rates_have_no_ratio(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        ours = make_process("ndp-rt openvino fp32", 10.0)
        rival = make_process("onnxruntime fp32", 20.0, kind="same network")
        self.prepare(monkeypatch, {one.name: one for one in (ours, rival)})
        bench = start(tiny_bundle, seconds=30.0, scenario="server", against=("onnxruntime",))
        bench.measure_latencies()
        first, second = bench.record["rows"]
        assert first["server"]["latency_bound_ms"] == second["server"]["latency_bound_ms"] == 30.0
        assert first["server"]["target_qps"] > 2 * second["server"]["target_qps"]
        assert "ratio" not in second

    def test_one_that_dies_after_it_was_timed_keeps_its_rows_and_ends_no_other(
        self, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
    ) -> None:
        ours = make_process("ndp-rt openvino fp32", 10.0)
        rival = make_process("onnxruntime fp32", 20.0, kind="same network")
        ours.ask = fail
        self.prepare(monkeypatch, {one.name: one for one in (ours, rival)})
        bench = start(tiny_bundle, seconds=1.0, against=("onnxruntime",))
        bench.measure_latencies()
        assert [row["peak_memory_bytes"] for row in bench.record["rows"]] == [None, 2**20]
        assert bench.record["refused"] == {ours.name: "after it was timed: its process ended by signal 9"}


@pytest.mark.nightly
def test_the_whole_path_through_real_engines(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    from rich.console import Console

    bench = start(tiny_bundle, seconds=0.3, batches=(1, 2), against=("onnxruntime",))
    bench.measure_latencies()
    record = json.loads(json.dumps(bench.record, allow_nan=False))
    assert record["is_complete"] and not record["refused"] and record["mode"] == "latency"
    assert [(row["name"], row["batch"]) for row in record["rows"]] == [
        ("ndp-rt openvino fp32", 1),
        ("onnxruntime fp32", 1),
        ("ndp-rt openvino fp32", 2),
        ("onnxruntime fp32", 2),
    ]
    for row in record["rows"]:
        assert row.keys() >= FIELDS
        assert row["check"]["map_max_abs_difference"] <= row["check"]["allowed"]
        assert sum(row["latencies_ms"]) >= 300
        assert 0 < row["ceiling"]["share"] < 1.5
        assert row["gflop"] > 0 and row["megabytes"] > 0
    ours = record["rows"][0]
    # The tiny network's nodes have names of their own, so that its engine is not split.
    assert set(ours["stages_ms"]) <= {
        *("preprocess", "encoder", "rbfrm", "decoder", "head", "segmentation", "engine", "postprocess")
    }
    assert sum(ours["stages_ms"].values()) == pytest.approx(ours["parts_ms"]["total"], rel=0.1)
    print_record(Console(width=80, highlight=False), record)
    printed = capsys.readouterr().out
    assert "single-stream" in printed and format_number(ours["latency"]["p50_ms"]) in printed


def test_a_plain_bundle_has_to_hold_the_same_network(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="has the rewrites"):
        start(tiny_bundle, plain=BRICKS)
    with pytest.raises(InputError, match="answer differently to their golden images"):
        start(BRICKS, plain=tiny_bundle)


def test_golden_files_hold_the_golden_images(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    paths = write_golden_files(bundle, tmp_path)
    images = bundle.golden().image
    assert len(paths) == len(images)
    for path, values in zip(paths, images, strict=True):
        assert abs(read_image(path).transpose(2, 0, 1) / 255 - values).max() < 1e-6


@pytest.mark.parametrize("changes", [{"against": ("onnxruntime",)}, {"batches": (2,)}, {"scenario": "offline"}])
def test_other_modes_time_one_inspector_alone(tiny_bundle: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--cold, --idle and --sweep time one inspector"):
        start(tiny_bundle, **changes).measure_idle(1.0)


def test_a_pause_is_above_zero(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="--idle: expected a number above 0, got 0"):
        start(tiny_bundle).measure_idle(0.0)


@pytest.mark.parametrize(("scenario", "image_count"), [("single-stream", 2), ("multi-stream", 8)])
def test_what_a_gpu_copies_is_held_against_an_images_share_of_a_query(scenario: str, image_count: int) -> None:
    process = make_process("ndp-rt tensorrt fp32", 8.0)
    process.spec = dataclasses.replace(process.spec, device="cuda")
    cost = {"stages_ms": {"upload": 0.5}, "stages_source": "given", "gpu_memory_bytes": 1, "gpu": {"launch_us": 0.0}}
    process.ask = lambda name, *values: cost
    row: dict[str, Any] = {
        "scenario": scenario,
        "batch": 2,
        "latency": {"p50_ms": image_count * 1.0, "cv": 0.0},
        "round_p50_ms": [],
        "warm_up": {"is_stable": True},
        "parts_ms": {},
        "warnings": [],
    }
    Explainer("cuda", None, quiet).explain_times(row, process)
    assert row["warnings"] == ["transfer-bound: copies to and from the GPU take 0.500 of 1.000 ms"]
    process.ask = fail
    row["warnings"] = []
    Explainer("cuda", None, quiet).explain_times(row, process)  # a time is not lost for it
    assert row["warnings"] == []


def fail(name: str, *values: Any) -> None:
    raise EngineError("its process ended by signal 9")
