"""The inspector: what it returns, refuses, and promises to threads."""

import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError, MissingExtraError
from ndp_rt.images.preprocess import preprocess
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.runtime.session import choose_batch_size
from tests.tolerances import assert_close

SIDE = 64
PLANS = ("fused", "staged")


@pytest.fixture(scope="module", params=PLANS)
def inspector(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, plan=request.param, batches=(1, 4), threads=1, threshold=0.55) as opened:
        yield opened


@pytest.fixture
def one(tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, threads=1, threshold=0.55) as opened:
        yield opened


def draw_image(rng: np.random.Generator, *shape: int, dtype: str = "uint8") -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def test_score_is_the_maximum_of_the_smoothed_golden_map(inspector: Inspector) -> None:
    golden = inspector.bundle.golden()
    for image, raw_map in zip(golden.image, golden.map, strict=True):
        result = inspector.inspect(np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8))
        smoothed = smooth(raw_map[0])
        assert_close(result.anomaly_map, smoothed, "map", "float32")
        assert_close(result.score, smoothed.max(), "map", "float32")


def test_plans_agree(tiny_bundle: Path, rng: np.random.Generator) -> None:
    image = draw_image(rng, 70, 90, 3)
    results = []
    for plan in PLANS:
        with Inspector.open(tiny_bundle, plan=plan, threads=1) as opened:
            results.append(opened.inspect(image))
    assert_close(results[0].anomaly_map, results[1].anomaly_map, "map", "float32")


@pytest.mark.parametrize("shape", [(1, 1), (1, 50, 3), (64, 64), (63, 65, 1), (200, 31, 3), (40, 300)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_takes_images_of_any_size(
    inspector: Inspector, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    result = inspector.inspect(draw_image(rng, *shape, dtype=dtype))
    assert result.anomaly_map.shape == shape[:2] and result.anomaly_map.dtype == np.float32
    assert np.isfinite(result.anomaly_map).all()
    assert result.is_defect == (result.score >= result.threshold) == bool(result.defects)
    for defect in result.defects:
        assert defect.x_px + defect.width_px <= shape[1] and defect.y_px + defect.height_px <= shape[0]


def test_strided_views_give_the_same_as_copies(one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, 128, 128, 3)
    for view in (image[::2, ::2], image[::-1], image.transpose(1, 0, 2)):
        assert one.inspect(view).score == one.inspect(view.copy()).score


def test_result_is_frozen_and_belongs_to_the_caller(one: Inspector, rng: np.random.Generator) -> None:
    result = one.inspect(draw_image(rng, SIDE, SIDE), keep_reconstruction=True)
    kept_map, kept_picture = result.anomaly_map.copy(), result.reconstruction.copy()
    other = one.inspect(draw_image(rng, SIDE, SIDE), keep_reconstruction=True)
    assert np.array_equal(result.anomaly_map, kept_map) and np.array_equal(result.reconstruction, kept_picture)
    assert not np.array_equal(result.anomaly_map, other.anomaly_map)
    assert result.reconstruction.shape == (SIDE, SIDE, 3)
    with pytest.raises(AttributeError):
        result.score = 0.0


def test_states_its_times(inspector: Inspector, rng: np.random.Generator) -> None:
    times = inspector.inspect(draw_image(rng, 80, 80)).timings_ms
    assert list(times)[:4] == ["preprocess", "engine", "postprocess", "total"]
    assert tuple(times)[4:] == inspector.stage_names
    assert times["total"] == pytest.approx(times["preprocess"] + times["engine"] + times["postprocess"])
    assert all(value > 0 for value in times.values())


def test_same_image_gives_the_same_bits(inspector: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, 90, 64, 3)
    first, second = inspector.inspect(image), inspector.inspect(image)
    assert first.score == second.score and np.array_equal(first.anomaly_map, second.anomaly_map)


def test_defects_come_in_millimetres_when_asked(tiny_bundle: Path, rng: np.random.Generator) -> None:
    with Inspector.open(tiny_bundle, threads=1, threshold=0.0, mm_per_pixel=0.25) as opened:
        (defect,) = opened.inspect(draw_image(rng, 100, 200)).defects
    assert (defect.width_px, defect.height_px, defect.area_px) == (200, 100, 20000)
    assert (defect.width_mm, defect.height_mm, defect.area_mm2) == (50.0, 25.0, 1250.0)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
def test_batch_gives_what_single_images_give(inspector: Inspector, rng: np.random.Generator, count: int) -> None:
    images = [draw_image(rng, 50 + index, 64, 3) for index in range(count)]
    results = inspector.inspect_batch(images)
    assert [result.anomaly_map.shape for result in results] == [image.shape[:2] for image in images]
    for image, result in zip(images, results, strict=True):
        assert_close(result.anomaly_map, inspector.inspect(image).anomaly_map, "map", "float32")


def test_largest_filled_batch_is_chosen() -> None:
    assert [choose_batch_size((1, 4, 8), left) for left in (1, 3, 4, 7, 8, 20)] == [1, 1, 4, 4, 8, 8]
    assert choose_batch_size((8,), 3) == 8


def test_a_batch_that_is_not_filled_is_padded(tiny_bundle: Path, one: Inspector, rng: np.random.Generator) -> None:
    images = [draw_image(rng, SIDE, SIDE) for _ in range(2)]
    with Inspector.open(tiny_bundle, batches=(4,), threads=1) as fours:
        batch, single, streamed = fours.inspect_batch(images), fours.inspect(images[0]), [*fours.stream(images)]
    for image, *results in zip(images, batch, streamed, strict=True):
        for result in results:
            assert_close(result.anomaly_map, one.inspect(image).anomaly_map, "map", "float32")
    assert_close(single.anomaly_map, batch[0].anomaly_map, "map", "float32")


def test_batch_takes_no_iterator(one: Inspector) -> None:
    with pytest.raises(InputError, match=r"images: expected a list, got list_iterator\. stream\(\)"):
        one.inspect_batch(iter([]))


def test_batch_names_the_image_that_it_refuses(one: Inspector, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"image 1 of the batch: image: expected .* got float64"):
        one.inspect_batch([draw_image(rng, 8, 8), np.zeros((8, 8))])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros((5, 0, 3), np.uint8), "no pixels"),
        (np.full((5, 5), np.nan), "Floats carry no range"),
        (np.zeros((5, 5, 3), np.float32), "Floats carry no range"),
        (np.zeros((5, 5, 4), np.uint8), "drop-alpha"),
        (np.zeros((5, 5, 2), np.uint8), "Channels go last"),
        (np.zeros((5, 5), np.int32), "astype"),
        (np.zeros(5, np.uint8), "one image at a time"),
        ("image.png", "read_image"),
        (None, "NoneType"),
        (np.broadcast_to(np.uint8(0), (30_000, 30_000)), "inspect_large"),
        (np.broadcast_to(np.uint8(0), (1, 30_000)), "inspect_large"),
    ],
)
def test_refuses_what_is_no_image(one: Inspector, image: Any, message: str) -> None:
    for call in (one.inspect, lambda x: one.inspect_batch([x]), lambda x: list(one.stream([x])), one.set_reference):
        with pytest.raises(InputError, match=message):
            call(image)
    assert one.inspect(np.zeros((5, 5), np.uint8)).score > 0


def test_alpha_is_dropped_when_asked(tiny_bundle: Path, one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE, 4)
    with Inspector.open(tiny_bundle, threads=1, channels="drop-alpha") as opened:
        assert opened.inspect(image).score == one.inspect(image[:, :, :3]).score
    with Inspector.open(tiny_bundle, threads=1, channels="bgr") as opened:
        assert opened.inspect(image[:, :, 2::-1]).score == one.inspect(image[:, :, :3]).score


def test_calls_after_close_raise(tiny_bundle: Path, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE)
    opened = Inspector.open(tiny_bundle, threads=1)
    running = opened.stream(iter([image, image, image]))
    next(running)
    opened.close()
    opened.close()
    for call in (
        lambda: opened.inspect(image),
        lambda: opened.inspect_batch([image]),
        lambda: opened.inspect_large(image),
        lambda: opened.stream([image]),
        lambda: opened.set_reference(image),
        lambda: opened.engine_hash,
        lambda: next(running),
    ):
        with pytest.raises(ClosedError, match="closed"):
            call()
    assert "closed" in repr(opened)


def test_eight_threads_get_the_right_answers(inspector: Inspector, rng: np.random.Generator) -> None:
    images = [draw_image(rng, 40 + 7 * index, 64, 3) for index in range(8)]
    expected = [inspector.inspect(image) for image in images]

    def inspect_often(index: int) -> bool:
        for turn in range(10):
            if turn % 3 == 1:
                (result,) = inspector.inspect_batch([images[index]])
            elif turn % 3 == 2:
                (result,) = inspector.stream([images[index]])
            else:
                result = inspector.inspect(images[index])
            if result.score != expected[index].score:
                return False
            if not np.array_equal(result.anomaly_map, expected[index].anomaly_map):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(inspect_often, range(8)))


def test_travels_by_pickle_as_its_arguments(tiny_bundle: Path, rng: np.random.Generator) -> None:
    image = draw_image(rng, 70, 70)
    with Inspector.open(tiny_bundle, plan="staged", threads=1, threshold=0.123, mm_per_pixel=2.0) as opened:
        content = pickle.dumps(opened)
        expected = opened.inspect(image)
    assert len(content) < 1000
    with pickle.loads(content) as copy:
        result = copy.inspect(image)
    assert (result.score, result.threshold) == (expected.score, 0.123)
    assert result.defects == expected.defects


def test_frames_come_in_order_from_one_reused_buffer(inspector: Inspector, rng: np.random.Generator) -> None:
    images = [draw_image(rng, SIDE, SIDE) for _ in range(12)]
    expected = [inspector.inspect(image).score for image in images]
    buffer = np.empty((SIDE, SIDE), np.uint8)

    def fill_buffer() -> Iterator[np.ndarray]:
        for image in images:
            buffer[:] = image
            yield buffer

    assert [result.score for result in inspector.stream(fill_buffer())] == expected


def test_stream_reads_at_most_two_frames_ahead(one: Inspector, rng: np.random.Generator) -> None:
    image, pulled = draw_image(rng, SIDE, SIDE), 0

    def count_frames() -> Iterator[np.ndarray]:
        nonlocal pulled
        for _ in range(50):
            pulled += 1
            yield image

    results = one.stream(count_frames())
    for consumed in range(1, 5):
        next(results)
        threading.Event().wait(0.05)
        assert pulled <= consumed + 2
    results.close()
    assert not any(thread.name == "ndp-rt frame reader" for thread in threading.enumerate())


def test_stream_raises_what_its_source_raises_after_the_frames_before(one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE)

    def break_after_three() -> Iterator[np.ndarray]:
        yield from (image, image, image)
        raise OSError("the camera is gone")

    results = one.stream(break_after_three())
    assert len([next(results) for _ in range(3)]) == 3
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)
    assert one.inspect(image).score > 0


def test_closing_a_stream_does_not_wait_for_a_source_that_is_stuck(one: Inspector, rng: np.random.Generator) -> None:
    image, released = draw_image(rng, SIDE, SIDE), threading.Event()

    def get_stuck() -> Iterator[np.ndarray]:
        yield image
        released.wait(30)

    results = one.stream(get_stuck())
    next(results)
    results.close()
    released.set()
    assert one.inspect(image).score > 0


def test_tiles_of_a_small_image_are_the_image(one: Inspector, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE, 3)
    large, whole = one.inspect_large(image), one.inspect(image)
    assert large.score == whole.score and np.array_equal(large.anomaly_map, whole.anomaly_map)


@pytest.mark.parametrize("shape", [(64, 65), (200, 150, 3), (30, 200), (1, 1), (129, 64, 1)])
def test_large_map_is_the_maximum_of_its_tiles(
    inspector: Inspector, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    image = draw_image(rng, *shape)
    result = inspector.inspect_large(image, overlap_px=16)
    assert result.anomaly_map.shape == shape[:2] and np.isfinite(result.anomaly_map).all()
    assert result.score == result.anomaly_map.max()
    assert result.is_defect == bool(result.defects)
    if min(shape[:2]) >= SIDE:
        corner = inspector.inspect(image[-SIDE:, -SIDE:])
        assert (result.anomaly_map[-SIDE:, -SIDE:] >= corner.anomaly_map - 1e-6).all()
        assert_close(result.anomaly_map[-8:, -8:], corner.anomaly_map[-8:, -8:], "map", "float32")


def test_large_images_are_read_tile_by_tile(one: Inspector, tmp_path: Path) -> None:
    image = np.memmap(tmp_path / "large.raw", np.uint8, "w+", shape=(1000, 700))
    image[500:520, 300:320] = 255
    result = one.inspect_large(image, overlap_px=0)
    assert result.anomaly_map.shape == (1000, 700)


@pytest.mark.parametrize("overlap_px", [-1, 33])
def test_refuses_overlaps_of_more_than_half_a_tile(one: Inspector, overlap_px: int) -> None:
    with pytest.raises(InputError, match="overlap_px"):
        one.inspect_large(np.zeros((100, 100), np.uint8), overlap_px=overlap_px)


def test_staged_reference_is_swapped_while_running(tiny_bundle: Path, rng: np.random.Generator) -> None:
    image, good = draw_image(rng, SIDE, SIDE, 3), draw_image(rng, 80, 80, 3)
    with Inspector.open(tiny_bundle, plan="staged", threads=1) as opened:
        before, hash_before = opened.inspect(image), opened.engine_hash
        opened.set_reference(good)
        after, hash_after = opened.inspect(image), opened.engine_hash
        golden = np.empty((1, 3, SIDE, SIDE), np.float32)
        preprocess(good, opened.bundle.manifest.input, golden[0])
    assert hash_before != hash_after
    assert not np.array_equal(before.anomaly_map, after.anomaly_map)
    with Inspector.open(tiny_bundle, plan="staged", threads=1) as opened:
        assert opened.inspect(image).score == before.score


def test_does_not_call_a_map_that_is_not_finite_good(one: Inspector) -> None:
    batch = one._last.batch
    batch.maps[:] = np.nan  # as an engine in a low precision might
    with pytest.raises(EngineError, match="expected finite values"):
        batch.score(0)


def test_uses_the_bundles_threshold_unless_told_otherwise(tiny_bundle: Path) -> None:
    with Inspector.open(tiny_bundle, threads=1) as opened:
        assert opened.threshold == open_bundle(tiny_bundle).threshold("fp32").value


def test_a_call_allocates_its_result_and_little_else(tiny_bundle: Path, rng: np.random.Generator) -> None:
    image = draw_image(rng, SIDE, SIDE, 3)
    with Inspector.open(tiny_bundle, plan="staged", threads=1, threshold=2.0) as opened:
        tracemalloc.start()
        try:
            for _ in range(10):
                result = opened.inspect(image)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(100):
                result = opened.inspect(image)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    map_bytes = result.anomaly_map.nbytes
    print(f"kept {after - before} bytes in 100 calls, {peak - before} more in one; a map has {map_bytes}")
    small = 65536  # the interpreter's and the backend's own lists of freed objects, which do not grow
    assert after - before < small  # one result has taken the place of another: 100 maps would be 1.6 MB
    assert peak - before < map_bytes + small  # this result beside the last one


def test_goes_on_with_the_cpu_where_the_gpu_cannot_be_used(
    tiny_bundle: Path, one: Inspector, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    image = draw_image(rng, SIDE, SIDE, 3)
    settings: dict[str, Any] = {"device": "cuda:99", "precision": "fp16", "threshold": 0.55}
    with pytest.raises((DeviceError, MissingExtraError)):
        Inspector.open(tiny_bundle, **settings)
    with Inspector.open(tiny_bundle, fallback=True, **settings) as opened:
        assert opened.inspect(image).score == one.inspect(image).score
        assert "going on with the CPU" in caplog.text
        assert [r.score for r in opened.stream([image])] == [one.inspect(image).score]
