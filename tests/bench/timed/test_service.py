"""What is timed in its own process, with the tiny bundle: what it answers, and what happens when it dies."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.timed import service
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import OURS, TimedSpec, Turn
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import EngineError, InputError
from ndp_rt.inspector import Inspector
from tests.tiny_bundle import SIDE, make_tiny_bundle

ONE = Turn(batch=1, query_size=1)


def make_spec(bundle: Path, **changes: object) -> TimedSpec:
    values: dict[str, object] = {
        "name": "ndp-rt openvino fp32",
        "word": OURS,
        "kind": OURS,
        "bundle": str(bundle),
        "precision": "fp32",
        "batches": (1, 2),
        "backend": "openvino",
        "plan": "fused",
        "threads": 1,
    }
    return TimedSpec(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def process() -> Iterator[TimedProcess]:
    with TimedProcess() as one:
        yield one


def test_one_is_opened_checked_and_timed_in_a_process_of_its_own(tiny_bundle: Path, process: TimedProcess) -> None:
    opened = process.open(make_spec(tiny_bundle))
    assert process.process_id != os.getpid()
    assert set(opened.checks) == {1, 2}
    check = opened.checks[2]
    assert 0 <= check.map_max_abs_difference <= (check.allowed or 0)
    assert (check.image_count, opened.backend, opened.plan) == (2, "openvino", "fused")
    warm = process.warm_up(ONE, 5.0)
    assert warm.query_ms > 0 and warm.query_count >= 10
    times = process.run_turn(Turn(batch=2, query_size=4, seconds=0.05), 2)
    assert times.image_count == 4 * len(times.latencies_ms)
    assert times.elapsed_s >= max(0.05, sum(times.latencies_ms) / 1e3)
    assert set(times.parts_ms) == {"preprocess", "engine", "postprocess", "total"}
    assert 0 < times.parts_ms["engine"] < times.parts_ms["total"] <= max(times.latencies_ms)
    assert (process.ask("read_peak_memory") or 2**30) > 2**20


def test_a_turn_lasts_one_query_at_least(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle, batches=(1,)))
    assert len(process.run_turn(ONE, 0).latencies_ms) == 1


def test_offline_times_are_a_querys_over_its_images(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle))
    for batch in (1, 2):
        times = process.run_turn(Turn(batch=batch, query_size=6, method="decide_all"), 0)
        assert 0 < times.latencies_ms[0] * 6 <= times.elapsed_s * 1e3 * (1 + 1e-9)


def test_images_that_wait_together_share_a_batch(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle))
    times = process.run_turn(Turn(batch=2, query_size=1, arrivals_s=(0.0, 0.0, 0.0, 0.2)), 0)
    assert (len(times.latencies_ms), times.image_count) == (4, 4)
    assert times.latencies_ms[2] > times.latencies_ms[1]  # it waited for the batch of the first two
    assert times.elapsed_s >= 0.2
    assert times.latencies_ms[3] <= (times.elapsed_s - 0.2) * 1e3 + 1e-6  # counted from its own arrival


@pytest.mark.nightly
def test_large_images_go_through_tiles(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle, batches=(1,)))
    process.ask("use_images", [np.zeros((3 * SIDE, 3 * SIDE, 3), np.uint8)])
    whole, tiled = (process.run_turn(Turn(batch=1, query_size=1, method=f"decide{end}"), 1) for end in ("", "_large"))
    assert tiled.parts_ms["engine"] > 3 * whole.parts_ms["engine"]  # at least nine tiles


def test_files_are_decoded_inside_the_clock(tiny_bundle: Path, tmp_path: Path, process: TimedProcess) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), noise)
    process.open(make_spec(tiny_bundle, batches=(1,)), [str(tmp_path / "image.png")])
    times = process.run_turn(Turn(batch=1, query_size=1, seconds=0.3), 1)
    assert min(times.latencies_ms) > 1.5 * times.parts_ms["total"]  # decoding noise takes longer than a tiny network


@pytest.mark.nightly
def test_a_pause_comes_before_the_clock(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle, batches=(1,)))
    assert process.ask("time_after_pause", 1, 0.5) < 400


def test_our_errors_come_back_as_they_are(tmp_path: Path, process: TimedProcess) -> None:
    spec = make_spec(tmp_path / "missing.ndp")
    with pytest.raises(Exception, match="missing.ndp") as caught:
        process.open(spec)
    assert type(caught.value).__name__ == "BundleError"
    process.close()


def test_a_wrong_answer_is_not_timed(tmp_path: Path, process: TimedProcess) -> None:
    wrong = make_tiny_bundle(tmp_path / "wrong.ndp", map_shift=0.01)
    with pytest.raises(EngineError, match="disagrees with the bundle's golden vectors"):
        process.open(make_spec(wrong.path, batches=(1,)))


def test_a_process_that_is_killed_is_an_error_that_says_how(tiny_bundle: Path, process: TimedProcess) -> None:
    process.open(make_spec(tiny_bundle, batches=(1,)))
    os.kill(process.process_id, signal.SIGKILL)
    with pytest.raises(EngineError, match="its process ended by signal 9, as when memory runs out"):
        process.warm_up(ONE, 1.0)


def test_a_process_that_says_something_else_is_an_error(process: TimedProcess) -> None:
    with pytest.raises(EngineError, match="AttributeError"):
        process.ask("no_such_request")


def test_memory_that_runs_out_is_an_error_and_not_the_end() -> None:
    class Full(service.Service):
        def read_peak_memory(self) -> int:
            raise MemoryError("Unable to allocate 9 TiB")

    kind, error = service.answer(Full(), "read_peak_memory", ())
    assert kind == "error" and isinstance(error, EngineError) and "Unable to allocate 9 TiB" in str(error)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.load(io.BytesIO(pickle.dumps(InputError("what came, what is taken"))))
    assert isinstance(error, InputError) and str(error) == "what came, what is taken"


def test_ours_judges_as_an_inspector_does(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    timed = service.open_timed(make_spec(tiny_bundle, batches=(1,)))
    image = to_image(bundle.golden().image[0])
    with Inspector.open(tiny_bundle, threads=1) as inspector:
        expected = inspector.inspect(image)
    anomaly_map, score = timed.judge(image)
    timed.close()
    assert score == expected.score
    assert np.array_equal(anomaly_map, expected.anomaly_map)


def test_a_process_that_is_still_at_work_is_ended_at_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TimedProcess() as process:
        process.open(make_spec(tiny_bundle, batches=(1,)))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pickle, "load", interrupt)
            process.run_turn(Turn(batch=1, query_size=1, seconds=3600.0), 0)
        with pytest.raises(EngineError, match="interrupted in a request"):  # not the turn's times, which come late
            process.ask("read_peak_memory")
        start = time.monotonic()
        process.close()
        assert time.monotonic() - start < 300


def interrupt(stream: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: ps, and processes that outlive their parent")
def test_a_process_whose_parent_is_killed_leaves_in_the_middle_of_a_turn(tiny_bundle: Path) -> None:
    code = f"""
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import TimedSpec, Turn
process = TimedProcess()
process.open({make_spec(tiny_bundle, batches=(1,))!r})
print(process.process_id, flush=True)
process.run_turn(Turn(batch=1, query_size=1, seconds=3600.0), 0)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 300
    while is_running(child):
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(process_id: int) -> bool:
    """Tell whether a process works; one that ended may wait for its new parent to notice."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")
