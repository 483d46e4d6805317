"""Batches and streams on several threads: the results of single calls, in order, whatever happens on the way."""

import gc
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.errors import ClosedError, EngineError
from ndp_rt.pipeline.overlapped_batch import count_overlapped
from ndp_rt.runtime.assets import AssetMaker
from ndp_rt.runtime.host import HostBatch, HostExecutor
from tests.tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.skipif(find_cpu().usable_core_count < 2, reason="needs two cores")

SIDE = 64
WAIT_S = 300.0


@pytest.fixture
def two(tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, threads=2, threshold=0.55) as opened:
        yield opened


def draw_images(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 255, (40 + 3 * index, SIDE, 3), dtype=np.uint8) for index in range(count)]


def find_executor(inspector: Inspector) -> HostExecutor:
    executor = inspector._last.executor
    assert isinstance(executor, HostExecutor) and executor.parallel_count == 2
    return executor


@pytest.mark.parametrize(
    ("image_count", "size", "parallel_count", "expected"),
    [
        (0, 1, 2, 0),
        (1, 1, 2, 0),
        (2, 1, 2, 2),
        (3, 1, 2, 2),
        (8, 1, 2, 8),
        (9, 1, 8, 8),
        (13, 1, 8, 8),
        (14, 1, 8, 14),
        (5, 4, 2, 5),
        (9, 4, 2, 8),
        (4, 4, 2, 0),
        (8, 1, 1, 0),
        (8, 1, 0, 0),
    ],
)
def test_rounds_that_are_not_filled_are_left_to_all_threads(
    image_count: int, size: int, parallel_count: int, expected: int
) -> None:
    assert count_overlapped(image_count, size, parallel_count) == expected


@pytest.mark.parametrize(("batches", "count"), [((1,), 2), ((1,), 9), ((1, 4), 9), ((4,), 3), ((4,), 9)])
def test_a_batch_gives_the_bits_of_single_calls(
    tiny_bundle: Path, rng: np.random.Generator, batches: tuple[int, ...], count: int
) -> None:
    images = draw_images(rng, count)
    with Inspector.open(tiny_bundle, threads=2, batches=batches[:1]) as single:
        expected = [single.inspect(image, keep_reconstruction=True) for image in images]
    with Inspector.open(tiny_bundle, threads=2, batches=batches) as opened:
        results = opened.inspect_batch(images, keep_reconstruction=True)
    assert len(results) == count
    for result, wanted in zip(results, expected, strict=True):
        assert result.score == wanted.score and np.array_equal(result.anomaly_map, wanted.anomaly_map)
        assert np.array_equal(result.reconstruction, wanted.reconstruction)
        assert all(result.timings_ms[part] > 0 for part in ("preprocess", "engine", "postprocess"))


def test_maps_go_to_the_images_own_arrays(two: Inspector, rng: np.random.Generator) -> None:
    images = draw_images(rng, 7)
    maps = [np.full(image.shape[:2], np.nan, np.float32) for image in images]
    results = two.inspect_batch(images, maps_out=maps)
    for image, made, result in zip(images, maps, results, strict=True):
        assert result.anomaly_map is made and np.array_equal(made, two.inspect(image).anomaly_map)


def test_a_failure_on_the_way_leaves_nothing_computing(
    two: Inspector, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, calls = draw_images(rng, 8), 0
    expected = [result.score for result in two.inspect_batch(images)]
    score = HostBatch.score

    def fail_once(batch: HostBatch, index: int) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise EngineError("the map holds NaN")
        return score(batch, index)

    monkeypatch.setattr(HostBatch, "score", fail_once)
    with pytest.raises(EngineError, match="NaN"):
        two.inspect_batch(images)
    batches = find_executor(two).shared_batches
    assert len(batches) == 3 and not any(batch.is_computing for batch in batches)
    assert [result.score for result in two.inspect_batch(images)] == expected


def test_frames_come_in_order_from_one_reused_buffer(two: Inspector, rng: np.random.Generator) -> None:
    images = [rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8) for _ in range(40)]
    expected = [two.inspect(image).score for image in images]
    buffer = np.empty((SIDE, SIDE), np.uint8)

    def fill_buffer() -> Iterator[np.ndarray]:
        for image in images:
            buffer[:] = image
            yield buffer

    assert [result.score for result in two.stream(fill_buffer())] == expected


def test_a_stream_fills_its_batches_and_reads_no_further(two: Inspector, rng: np.random.Generator) -> None:
    image, pulled = draw_images(rng, 1)[0], 0
    batch_count = find_executor(two).stream_batch_count
    is_full = threading.Event()

    def count_frames() -> Iterator[np.ndarray]:
        nonlocal pulled
        while True:
            pulled += 1
            if pulled == 1 + batch_count:  # the first was given back
                is_full.set()
            yield image

    results = two.stream(count_frames())
    next(results)
    assert is_full.wait(WAIT_S)
    for consumed in range(2, 6):
        next(results)
        assert pulled <= consumed + batch_count
    results.close()


def test_a_slow_camera_gets_all_threads_for_every_frame(two: Inspector, rng: np.random.Generator) -> None:
    image, came = draw_images(rng, 1)[0], threading.Semaphore(1)

    def wait_for_the_result_before() -> Iterator[np.ndarray]:
        for _ in range(6):
            assert came.acquire(timeout=WAIT_S)
            yield image

    for _ in two.stream(wait_for_the_result_before()):
        came.release()
    engine = find_executor(two)._engines[1]["fused"]
    assert engine._shared is None  # no frame ever found another


def test_streams_that_were_left_keep_no_memory(two: Inspector, rng: np.random.Generator) -> None:
    images, executor = draw_images(rng, 6), find_executor(two)
    for _ in range(5):
        results = two.stream(iter(images))
        next(results)
        results.close()
    two.inspect(images[0])
    two.inspect_batch(images)
    del results
    gc.collect()
    batches = [two._last.batch, *executor.shared_batches]
    assert {id(batch) for batch in executor._started} == {id(batch) for batch in batches}
    assert len(executor._engines[1]["fused"]._calls) == len(batches)
    assert len(executor._preprocessors) <= 2  # the caller's and a reader's


def test_close_ends_a_stream_whose_frames_compute(tiny_bundle: Path, rng: np.random.Generator) -> None:
    opened = Inspector.open(tiny_bundle, threads=2)
    results = opened.stream(iter(draw_images(rng, 20)))
    next(results)
    opened.close()
    with pytest.raises(ClosedError, match="closed"):
        next(results)
    assert not any(thread.name == "ndp-rt frame reader" for thread in threading.enumerate())


def test_a_reference_that_is_set_between_frames_counts_for_those_not_yet_read(
    tiny_bundle: Path, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_tiny_bundle(tmp_path / "other.ndp", seed=1)

    def compile_other(maker: AssetMaker, *arguments: object) -> dict[int, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:  # gone when the shared model is loaded
            engine = compile_engine("openvino", other.stage_path("fused"), Path(folder), EngineOptions(threads=2))
        return {1: {"fused": engine}}

    monkeypatch.setattr(AssetMaker, "rebuild_engines", compile_other)
    image, good = draw_images(rng, 2)
    with Inspector.open(tiny_bundle, threads=2) as opened:
        before = opened.inspect(image).score
        results = opened.stream([image] * 30)
        scores = [next(results).score for _ in range(5)]
        opened.set_reference(good)
        after = opened.inspect(image).score
        scores += [result.score for result in results]
        batch = [result.score for result in opened.inspect_batch([image] * 6)]
    batch_count = find_executor(opened).stream_batch_count
    assert before != after and len(scores) == 30
    assert scores[:5] == [before] * 5 and set(scores) == {before, after}
    assert scores == sorted(scores, key=[before, after].index)  # never back to the old one
    assert scores[5 + batch_count :] == [after] * (25 - batch_count)
    assert batch == [after] * 6


def test_callers_in_several_threads_get_their_own_results(two: Inspector, rng: np.random.Generator) -> None:
    images = draw_images(rng, 6)
    expected = [two.inspect(image).score for image in images]
    wrong: list[int] = []

    def call_often(index: int) -> None:
        mine = [images[index]] * 5
        for _ in range(4):
            scores = [two.inspect(images[index]).score, *(result.score for result in two.inspect_batch(mine))]
            scores += [result.score for result in two.stream(mine)]
            if scores != [expected[index]] * 11:
                wrong.append(index)

    threads = [threading.Thread(target=call_often, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_warm_up_runs_every_size_and_loads_nothing_more(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    start = HostExecutor.start

    def note_size(executor: HostExecutor, batch: HostBatch, images: Any, size: int, **more: Any) -> None:
        sizes.append(size)
        start(executor, batch, images, size, **more)

    with Inspector.open(tiny_bundle, threads=2, batches=(1, 4)) as opened:
        monkeypatch.setattr(HostExecutor, "start", note_size)
        opened.warm_up(count=2)
        assert sizes == [1, 1, 4, 4]
        assert [one["fused"]._shared for one in find_executor(opened)._engines.values()] == [None, None]
