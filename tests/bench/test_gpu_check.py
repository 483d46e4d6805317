"""`make gpu-check` on the fake GPU: it measures, checks, writes its record, and says what was refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench import gpu_check, gpu_cost, request
from ndp_rt.bench import run as run_module
from ndp_rt.bench.explain import Explainer
from ndp_rt.bench.request import BenchRequest
from ndp_rt.bench.rivals.base import OpenRival, Rival, to_image
from ndp_rt.bench.timed import rival as timed_rival
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.engines.backend import BackendStatus
from ndp_rt.engines.registry import list_backends
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.runtime import cuda_profile
from tests.bench.local_process import open_locally
from tests.bricks import BRICKS
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError


class GoldenRival(Rival):
    """Answers golden images with golden scores, plus an error."""

    def __init__(self, name: str, error: float = 0.0, reason: str | None = None) -> None:
        self.name, self.error, self.reason = name, error, reason
        self.closed = 0

    def find(self) -> str | None:
        return self.reason

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        golden = bundle.golden()
        known = {to_image(image).tobytes(): i for i, image in enumerate(golden.image)}
        maps = smooth(golden.map).astype(np.float32) + self.error

        def call(images: Sequence[Any]) -> Any:
            rows = [known[image.tobytes()] for image in images]
            return maps[rows], golden.score[rows]

        shape = (batch, *to_image(golden.image[0]).shape)
        return OpenRival(shape, call, {"version": "golden"}, lambda: setattr(self, "closed", self.closed + 1))


@pytest.fixture(autouse=True)
def locally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in this process, where the fake GPU is, and leave out the ceilings."""
    monkeypatch.setattr(run_module, "open_process", open_locally)
    monkeypatch.setattr(cuda_profile, "MEDIAN_COUNT", 2)
    monkeypatch.setattr(cuda_profile, "STEP_REPEATS", 2)
    monkeypatch.setattr(gpu_cost, "COPY_BYTES", 2**12)
    for name in ("measure_ceilings", "compare_ceilings", "explain_work"):
        monkeypatch.setattr(Explainer, name, lambda self, *values: None)


def check(tiny_bundle: Path, out: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--batches", "1,2", "--precisions", "fp32,fp16"]
    arguments += ["--against-precisions", "fp32", "--seconds", "0.05", "--soak", "5"]
    arguments += [] if "--against" in more else ["--against", ""]
    code = gpu_check.main([*arguments, "--no-tests", "--out", str(out), *more])
    return code, [json.loads(line) for line in out.read_text().splitlines()]


def list_rows(record: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(row["name"], row["batch"], row["scenario"]) for row in record["rows"]]


@pytest.mark.nightly
def test_every_candidate_has_a_record_with_times_and_errors(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, records = check(tiny_bundle, tmp_path / "record.jsonl")
    assert code == 0 and [record["refused"] for record in records] == [{}] * 3
    assert all(record["is_complete"] for record in records)
    name = "ndp-rt fake fp32"
    single = [(name, 1, "single-stream"), (name, 2, "single-stream")]
    assert [list_rows(record) for record in records] == [single[:1], single, [(name, 1, "offline")]]
    for record in records:
        assert record["machine"]["gpu"]["name"] == "Fake GPU"
        for row in record["rows"]:
            assert 0.0 <= row["check"]["map_max_abs_difference"] <= row["check"]["allowed"]
            assert 0.0 < row["latency"]["p50_ms"] <= row["latency"]["p99_ms"] and row["images_per_s"] > 0.0
            gpu = row["gpu"]
            assert gpu["captured_batches"] == record["settings"]["batches"]
            assert gpu["buffer_bytes"] > 0 and gpu["launch_us"] > 0.0
            assert "rbfrm r3k2" in gpu["steps_ms"] and "encoder" in gpu["steps_ms"]
            assert set(gpu["tensor_errors"]) >= {"f1", "r3k2", "reconstruction", "am1", "smoothed", "score"}
            assert {"upload", "preprocess", "encoder", "rbfrm", "postprocess", "download"} <= set(row["stages_ms"])
    assert ["soak" in record["rows"][0]["gpu"] for record in records] == [False, True, True]
    assert records[1]["rows"][1]["gpu"]["soak"] == {"inspection_count": 5, "lost_bytes": 0}
    printed = capsys.readouterr().out
    assert "ndp-rt fake fp32, batch 2: p50" in printed and str(tmp_path / "record.jsonl") in printed
    assert "step 3: candidate 2 of 2" in printed


def test_backends_go_to_the_steps_by_their_order(fake_gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = BackendStatus(version="1")
    backends = list_backends("cuda")
    for backend in backends.values():
        monkeypatch.setattr(backend, "find", lambda: installed)
    args = gpu_check.parse_arguments(["--precisions", "fp32"])

    def list_names(step: int) -> list[str]:
        return [one.backends[0] for one in gpu_check.list_requests(step, args, [BRICKS])]

    first, *_, last = backends
    assert [list_names(1), list_names(2)] == [[last], list(backends)[:-1]]
    rivals = [one.against for one in gpu_check.list_requests(3, args, [BRICKS])]
    assert set(list_names(3)) == {first} and rivals == [(), (), *((word,) for word in args.against)]
    monkeypatch.setattr(backends[last], "find", lambda: BackendStatus(version=None, remedy="install it"))
    assert list_names(1) == []


@pytest.mark.nightly
def test_what_ends_a_step_loses_the_candidate_that_runs(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, count = gpu_check.GpuBench.measure_latencies, iter(range(9))

    def end_in_the_second(bench: gpu_check.GpuBench) -> None:
        measure(bench)
        if next(count):
            os.kill(os.getpid(), signal.SIGTERM)  # as a time limit does

    monkeypatch.setattr(gpu_check.GpuBench, "measure_latencies", end_in_the_second)
    monkeypatch.setattr(signal, "signal", signal.signal)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, records = check(tiny_bundle, tmp_path / "record.jsonl")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 130 and len(records) == 2 and all(record["rows"] for record in records)


def test_nothing_begins_that_would_end_too_late(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.jsonl"
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--no-tests", "--out", str(out), "--step", "1"]
    assert gpu_check.main([*arguments, "--minutes", "0"]) == 1 and not out.exists()
    assert "step 1: 1 of 1 candidates are left. Give it more --minutes" in capsys.readouterr().out


@pytest.mark.nightly
def test_every_bundle_has_a_record_and_the_defaults_reach_every_kind_of_kernel(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in gpu_check.BUNDLES if path.is_dir()] == ["demo.ndp", "bricks.ndp"]
    demo, bricks = (
        {step.op for step in open_bundle(path).manifest.find_program("cuda")[1].steps} for path in gpu_check.BUNDLES
    )
    assert demo == {""} and bricks >= {"rbfrm", "fuse_maps"}
    again, out = tmp_path / "again.ndp", tmp_path / "record.jsonl"
    shutil.copytree(tiny_bundle, again)
    monkeypatch.setattr(gpu_check, "BUNDLES", (tiny_bundle, again, tmp_path / "not here.ndp"))
    arguments = ["--backends", "fake", "--batches", "1", "--seconds", "0.05", "--step", "1", "--no-tests"]
    assert gpu_check.main([*arguments, "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["is_complete"] for one in records] == [True, True] and all(one["rows"] for one in records)
    fake_gpu.device_heap.limit_bytes = 1000
    assert gpu_check.main([*arguments, "--out", str(out)]) == 1


def test_typed_stages_are_of_one_bundle(fake_gpu: FakeCuda, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--stages", str(tmp_path), "--no-tests", "--out", str(tmp_path / "x.jsonl")]) == 1
    assert "--stages: expected one bundle that they are of, got 2" in capsys.readouterr().err


@pytest.mark.nightly
def test_rivals_are_checked_timed_in_turn_and_compared(
    fake_gpu: FakeCuda,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rivals = {
        one.name: one
        for one in (GoldenRival("right"), GoldenRival("wrong", error=0.5), GoldenRival("absent", reason="install it"))
    }
    monkeypatch.setattr(request, "expand", lambda words, device, fit: words)
    for module in (request, timed_rival):
        monkeypatch.setattr(module, "find_rival", lambda word, device, models_on, fit: rivals[word])
    code, records = check(tiny_bundle, tmp_path / "record.jsonl", "--step", "3", "--against", "right,wrong,absent")
    right, wrong, absent = records[2:]
    rows = {(row["name"], row["batch"]): row for row in right["rows"]}
    row = rows["right fp32", 2]
    assert row["facts"]["version"] == "golden" and row["check"]["map_max_abs_difference"] <= 1e-6
    assert row["ratio"]["to"] == "ndp-rt fake fp32" and row["ratio"]["median"] > 0.0
    assert code == 1 and "disagrees" in wrong["refused"]["wrong fp32"]  # a wrong rival has no time
    assert absent["left_out"] == {"absent fp32": "install it"}
    printed = capsys.readouterr().out
    assert "times ndp-rt fake fp32" in printed and "absent fp32: left out: install it" in printed
    assert rivals["right"].closed == 2 and rivals["wrong"].closed == 1


def test_an_unknown_rival_is_refused_before_anything_is_built(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--no-tests", "--against", "abacus"]
    arguments += ["--against-precisions", "fp32"]
    assert gpu_check.main([*arguments, "--out", str(tmp_path / "x.jsonl")]) == 1
    assert "--against names 'abacus'. Choose one of pytorch" in capsys.readouterr().err
    assert not list(tmp_path.glob("engines/*"))


def test_names_what_was_refused_and_fails(fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path) -> None:
    fake_gpu.device_heap.limit_bytes = 1000
    code, (record,) = check(tiny_bundle, tmp_path / "record.jsonl", "--step", "1")
    assert code == 1 and record["rows"] == []
    refused = record["refused"]["ndp-rt fake fp32"]
    assert "free bytes on Fake GPU, got 1000 of 1000" in refused


def test_says_that_there_is_no_gpu(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")

    fake_gpu.module.cuda.runtime.getDeviceCount = refuse
    assert gpu_check.main(["--bundle", str(tiny_bundle), "--no-tests", "--out", str(tmp_path / "x.jsonl")]) == 1
    assert "cudaErrorNoDevice" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(("bundle", "assets"), [(BRICKS, "[['f3', 'f4', 'f5']] "), (gpu_check.BUNDLES[0], "[] ")])
def test_runs_with_numpy_cupy_and_a_backend_alone(bundle: Path, assets: str) -> None:
    """What runs engines may import nothing else; the other packages are blocked in a process of its own."""
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        allowed = ("numpy", "ndp_rt", "cupy", "tensorrt")
        if first in sys.stdlib_module_names or first in allowed or first.startswith(("_", "__editable")):
            return None
        raise ModuleNotFoundError(f"blocked: {name}")
sys.meta_path.insert(0, Block())
import ndp_rt.bench.gpu_check, ndp_rt.bench.gpu_cost, ndp_rt.bench.timed.service, ndp_rt.engines.worker
from pathlib import Path
from ndp_rt.bench.request import BenchRequest
bundle = Path(sys.argv[1])
bench = ndp_rt.bench.gpu_check.GpuBench(BenchRequest(bundle=bundle, device="cuda", backends=("tensorrt",)), "x", print)
with bench.explainer.watch([]):
    pass
bundle = bench.bundle
print([sorted(bundle.read_asset(name)) for name in bundle.manifest.assets], len(bundle.golden().image))
"""
    command = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(assets)


def test_what_a_command_prints_is_shown_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"

    def show(text: str, **options: Any) -> None:
        if text == "first\n":
            seen.touch()

    monkeypatch.setattr(gpu_check, "print", show, raising=False)
    waits = "import os, sys\nprint('first', flush=True)\nwhile not os.path.exists(sys.argv[1]): pass\nprint('1 passed')"
    assert gpu_check.run([sys.executable, "-c", waits, str(seen)])["outcome"] == "1 passed"


def test_tests_of_a_step_are_written_beside_its_records(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    codes = iter((gpu_check.NO_TESTS_EXIT_CODE, 0, 1, 0))

    def tell(command: Sequence[str]) -> dict[str, Any]:
        calls.append(list(command))
        return {"exit_code": next(codes), "outcome": "as told"}

    monkeypatch.setattr(gpu_check, "run", tell)
    candidates = {3: [BenchRequest(bundle=tiny_bundle)]}
    monkeypatch.setattr(gpu_check, "list_requests", lambda step, *arguments: candidates.get(step, []))
    monkeypatch.setattr(gpu_check.GpuBench, "measure_latencies", lambda bench: bench.rows.append({}))
    monkeypatch.setattr(gpu_check, "print_record", lambda record: None)
    assert [gpu_check.main(["--out", str(tmp_path / "x.jsonl")]) for _ in range(2)] == [0, 1]
    records = [json.loads(line) for line in (tmp_path / "x-tests.jsonl").read_text().splitlines()]
    assert [(one["step"], one["tests"]["exit_code"]) for one in records] == [(1, 5), (2, 0), (1, 1), (2, 0)]
    assert [command[command.index("-m", 4) + 1] for command in calls[:2]] == [
        "gpu",
        "(tensorrt or tensorrt_rtx) and not gpu",
    ]
    assert calls[0][-2:] == ["--first=kernels", "--budget-s=240"]
    known = subprocess.run([*calls[1], "--markers"], cwd=gpu_check.ROOT, capture_output=True, text=True)
    assert known.returncode == 0, known.stderr  # pytest takes every option
    assert all(f"@pytest.mark.{mark}:" in known.stdout for mark in ("gpu", "tensorrt", "tensorrt_rtx"))


def test_a_machine_with_nothing_to_measure_says_so(
    fake_gpu: FakeCuda, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backends", "fake", "--precisions", "bf16", "--out", str(tmp_path / "x.jsonl")]
    assert gpu_check.main(arguments) == 1
    assert "backends: expected some of tensorrt, " in capsys.readouterr().err and not list(tmp_path.glob("x*"))
