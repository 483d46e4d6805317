"""`make gpu-check` on the fake GPU: it measures, checks, writes its record, and says what was refused."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ndp_rt.bench import gpu_check
from ndp_rt.bench.peers.base import BundlePeer, to_image
from ndp_rt.bundle import Bundle
from ndp_rt.kernels.smooth.definition import smooth
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError


class GoldenRunner:
    """Answers golden images with golden scores, plus an error."""

    facts: ClassVar[dict[str, str]] = {"version": "golden"}

    def __init__(self, bundle: Bundle, error: float) -> None:
        golden = bundle.golden()
        self.known = {to_image(image).tobytes(): i for i, image in enumerate(golden.image)}
        self.maps, self.scores = smooth(golden.map).astype(np.float32) + error, golden.score
        self.closed = 0

    def run(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        rows = [self.known[image.tobytes()] for image in images]
        return self.maps[rows], self.scores[rows]

    def close(self) -> None:
        self.closed += 1


class GoldenPeer(BundlePeer):
    precisions = ("fp32",)

    def __init__(self, name: str, error: float = 0.0, reason: str | None = None) -> None:
        self.name, self.error, self.reason = name, error, reason
        self.opened: list[GoldenRunner] = []

    def find(self) -> str | None:
        return self.reason

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> GoldenRunner:
        self.opened.append(GoldenRunner(bundle, self.error))
        return self.opened[-1]


def run(tiny_bundle: Path, out: Path, *more: str) -> tuple[int, dict]:
    arguments = ["--bundle", str(tiny_bundle), "--backends", "fake", "--batches", "1,2", "--count", "10", "--soak", "5"]
    arguments += [] if "--against" in more else ["--against", ""]
    code = gpu_check.main([*arguments, "--no-tests", "--out", str(out), *more])
    return code, json.loads(out.read_text())


@pytest.mark.nightly
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


@pytest.mark.nightly
def test_rivals_are_checked_timed_in_turn_and_compared(
    fake_gpu: FakeCuda,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right, wrong = GoldenPeer("right"), GoldenPeer("wrong", error=0.5)
    absent = GoldenPeer("absent", reason="pip install absent")
    monkeypatch.setattr(gpu_check, "list_peers", lambda device: (right, wrong, absent))
    more = ("--precisions", "fp32", "--against-precisions", "fp32", "--against", "right,wrong,absent")
    code, record = run(tiny_bundle, tmp_path / "record.json", *more)
    (row,) = record["rivals"]
    assert (row["name"], row["precision"], row["version"]) == ("right", "fp32", "golden")
    assert row["golden"]["map_max_abs_difference"] <= 1e-6 and row["latency"]["2"]["count"] == 10
    assert code == 1 and "disagrees" in record["refused"]["wrong fp32"]  # a wrong rival has no time
    assert "pip install absent" in record["left_out"]["absent fp32"]
    ratio = record["against_rivals"]["fp32 batch 1"]
    assert (ratio["ours"], ratio["best_rival"]) == ("fake", "right")
    assert ratio["times_as_fast"] == pytest.approx(ratio["best_rival_p50_ms"] / ratio["ours_p50_ms"])
    assert "times as fast as right" in capsys.readouterr().out
    assert all(runner.closed for runner in (*right.opened, *wrong.opened))


def test_an_unknown_rival_is_refused_before_anything_is_built(
    fake_gpu: FakeCuda, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--no-tests", "--against", "abacus", "--out", str(tmp_path / "x.json")]
    assert gpu_check.main(arguments) == 1
    assert "--against names abacus; pytorch" in capsys.readouterr().err
    assert not list(tmp_path.glob("engines/*"))


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
import ndp_rt.bench.gpu_check, ndp_rt.runtime.open_gpu, ndp_rt.runtime.gpu_check, ndp_rt.engines.worker
from ndp_rt.bundle.open import open_bundle
bundle = open_bundle(sys.argv[1])
print(sorted(bundle.read_asset("reference")), len(bundle.golden().image))
"""
    demo = Path(gpu_check.DEMO)
    done = subprocess.run([sys.executable, "-c", code, str(demo)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['f3', 'f4', 'f5']")
