"""`make gpu-check` on the fake GPU: it measures, checks, writes its record, and says what was refused."""

import json
import sys
from pathlib import Path

import pytest

from ndp_rt.bench import gpu_check
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError


def run(tiny_bundle: Path, out: Path, *more: str) -> tuple[int, dict]:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--batches", "1,2", "--count", "10", "--soak", "5"]
    code = gpu_check.main([*arguments, "--no-tests", "--out", str(out), *more])
    return code, json.loads(out.read_text())


def test_writes_a_time_and_an_error_for_every_batch(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = run(tiny_bundle, tmp_path / "record.json", "--precisions", "fp32")
    assert code == 0 and record["refused"] == {}
    (row,) = record["rows"]
    assert (row["backend"], row["precision"], row["captured_batches"]) == ("fake", "fp32", [1, 2])
    assert 0.0 <= row["golden"]["map_max_abs_difference"] <= row["golden"]["map_tolerance"]
    assert set(row["stage_errors"]) >= {"f1", "r3k2", "reconstruction", "am1", "smoothed", "score"}
    assert row["buffer_bytes"] > 0 and row["soak"] == {"inspection_count": 5, "lost_bytes": 0}
    for batch in ("1", "2"):
        latency = row["latency"][batch]
        assert latency["count"] == 10 and 0.0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"]
        assert latency["stream_images_per_s"] > 0.0 and latency["launch_us"] > 0.0
        assert "rbfrm r3k2" in latency["steps_ms"] and "encoder" in latency["steps_ms"]
    assert record["gpu"]["name"] == "Fake GPU"
    printed = capsys.readouterr().out
    assert "fake fp32" in printed and "p99 ms" in printed and str(tmp_path / "record.json") in printed


def test_names_what_was_refused_and_fails(fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path) -> None:
    fake_gpu.device_heap.limit_bytes = 1000
    code, record = run(tiny_bundle, tmp_path / "record.json")
    assert code == 1 and record["rows"] == []
    assert "need" in record["refused"]["fake fp32"] and "1000 are free" in record["refused"]["fake fp32"]


def test_says_that_there_is_no_gpu(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")

    fake_gpu.module.cuda.runtime.getDeviceCount = refuse
    assert gpu_check.main(["--bundle", str(tiny_bundle), "--no-tests", "--out", str(tmp_path / "x.json")]) == 1
    assert "cudaErrorNoDevice" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_runs_with_numpy_cupy_and_a_backend_alone() -> None:
    """What runs engines may import nothing else; the other packages are blocked in a process of its own."""
    import subprocess

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
import ndp_rt.bench.gpu_check, ndp_rt.plan.open_gpu, ndp_rt.plan.gpu_check, ndp_rt.engines.worker
from ndp_rt.bundle.open import open_bundle
bundle = open_bundle(sys.argv[1])
print(sorted(bundle.reference()), len(bundle.golden().image))
"""
    demo = Path(gpu_check.DEMO)
    done = subprocess.run([sys.executable, "-c", code, str(demo)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['f3', 'f4', 'f5']")
