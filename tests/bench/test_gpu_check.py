"""`make gpu-check` on the fake GPU: it measures, checks, writes its record, and says what was refused."""

import json
import shutil
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
from ndp_rt.bench.rivals.base import OpenRival, Rival, to_image
from ndp_rt.bench.timed import rival as timed_rival
from ndp_rt.bundle import Bundle, open_bundle
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


def check(tiny_bundle: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--batches", "1,2"]
    arguments += ["--seconds", "0.05", "--soak", "5"]
    arguments += [] if "--against" in more else ["--against", ""]
    code = gpu_check.main([*arguments, "--no-tests", "--out", str(out), *more])
    return code, json.loads(out.read_text())


@pytest.mark.nightly
def test_writes_a_time_and_an_error_for_every_batch(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = check(tiny_bundle, tmp_path / "record.jsonl", "--precisions", "fp32")
    assert code == 0 and record["refused"] == {} and record["is_complete"]
    assert [(row["name"], row["batch"]) for row in record["rows"]] == [("ndp-rt fake fp32", 1), ("ndp-rt fake fp32", 2)]
    for row in record["rows"]:
        assert 0.0 <= row["check"]["map_max_abs_difference"] <= row["check"]["allowed"]
        assert 0.0 < row["latency"]["p50_ms"] <= row["latency"]["p99_ms"] and row["images_per_s"] > 0.0
        gpu = row["gpu"]
        assert gpu["captured_batches"] == [1, 2] and gpu["buffer_bytes"] > 0 and gpu["launch_us"] > 0.0
        assert "rbfrm r3k2" in gpu["steps_ms"] and "encoder" in gpu["steps_ms"]
        assert set(gpu["tensor_errors"]) >= {"f1", "r3k2", "reconstruction", "am1", "smoothed", "score"}
        assert gpu["soak"] == {"inspection_count": 5, "lost_bytes": 0}
        assert {"upload", "preprocess", "encoder", "rbfrm", "postprocess", "download"} <= set(row["stages_ms"])
    assert record["machine"]["gpu"]["name"] == "Fake GPU"
    printed = capsys.readouterr().out
    assert "ndp-rt fake fp32, batch 2: p50" in printed and str(tmp_path / "record.jsonl") in printed


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
    arguments = ["--backends", "fake", "--batches", "1", "--precisions", "fp32", "--seconds", "0.05", "--soak", "1"]
    assert gpu_check.main([*arguments, "--against", "", "--no-tests", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["is_complete"] for one in records] == [True, True] and all(one["rows"] for one in records)
    fake_gpu.device_heap.limit_bytes = 1000
    assert gpu_check.main([*arguments, "--against", "", "--no-tests", "--out", str(out)]) == 1


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
    more = ("--precisions", "fp32", "--against-precisions", "fp32", "--against", "right,wrong,absent")
    code, record = check(tiny_bundle, tmp_path / "record.jsonl", *more)
    rows = {(row["name"], row["batch"]): row for row in record["rows"]}
    row = rows["right fp32", 2]
    assert row["facts"]["version"] == "golden" and row["check"]["map_max_abs_difference"] <= 1e-6
    assert row["ratio"]["to"] == "ndp-rt fake fp32" and row["ratio"]["median"] > 0.0
    assert code == 1 and "disagrees" in record["refused"]["wrong fp32"]  # a wrong rival has no time
    assert record["left_out"] == {"absent fp32": "install it"}
    printed = capsys.readouterr().out
    assert "times ndp-rt fake fp32" in printed and "absent fp32: left out: install it" in printed
    assert rivals["right"].closed == 2 and rivals["wrong"].closed == 1


def test_an_unknown_rival_is_refused_before_anything_is_built(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--no-tests", "--against", "abacus"]
    assert gpu_check.main([*arguments, "--out", str(tmp_path / "x.jsonl")]) == 1
    assert "--against names 'abacus'. Choose one of pytorch" in capsys.readouterr().err
    assert not list(tmp_path.glob("engines/*"))


def test_names_what_was_refused_and_fails(fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path) -> None:
    fake_gpu.device_heap.limit_bytes = 1000
    code, record = check(tiny_bundle, tmp_path / "record.jsonl", "--precisions", "fp32")
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


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compute-sanitizer that finds an error with racecheck alone and writes down how it was called."""
    script = tmp_path / "compute-sanitizer"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "========= ERROR SUMMARY: 0 errors"\n[ "$2" != racecheck ]\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "calls"


def test_every_tool_runs_the_kernels_tests_and_an_error_is_a_failure(sanitizer: Path) -> None:
    found = gpu_check.run_sanitizer(("memcheck", "racecheck"))
    assert [gpu_check.has_failed(found[tool]) for tool in ("memcheck", "racecheck")] == [False, True]
    assert "ERROR SUMMARY: 0 errors" in found["memcheck"]["outcome"]
    first, second = sanitizer.read_text().splitlines()
    assert first == f"--tool memcheck --error-exitcode 1 {sys.executable} -m pytest -m gpu tests/kernels"
    assert second.startswith("--tool racecheck")


def test_a_tool_that_is_not_installed_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gpu_check.run_sanitizer(("memcheck",))
    assert found == {"memcheck": {"left_out": "compute-sanitizer is not installed"}}
    assert not gpu_check.has_failed(found["memcheck"])


def test_no_tests_is_no_failure_and_a_failed_one_is() -> None:
    assert not gpu_check.has_failed(gpu_check.run([sys.executable, "-c", "raise SystemExit(5)"]))
    assert gpu_check.has_failed(gpu_check.run([sys.executable, "-c", "print('1 failed'); raise SystemExit(1)"]))
    assert gpu_check.run([sys.executable, "-c", "print('x'); print('3 passed in 1 s')"])["outcome"] == "3 passed in 1 s"


def test_unknown_tools_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_check.parse_arguments(["--sanitize", "lint"])
    assert "memcheck" in capsys.readouterr().err
    assert gpu_check.parse_arguments(["--sanitize", "memcheck,racecheck"]).sanitize == ("memcheck", "racecheck")
