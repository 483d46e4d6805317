"""The inspector on the fake GPU, from the bundle to the result: built, cached, checked, run, swapped, lost, closed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import Inspector, import_onnx, open_bundle
from ndp_rt.capi.installed import DEMO
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError
from tests.fakes.device_frame import DeviceFrame
from tests.fakes.fake_backend import FakeDeviceBackend
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError, FakeStream
from tests.importing.models import MAP, MAP_OUTPUT, PEAK, write_model
from tests.tolerances import assert_close

SIDE = 64
SETTINGS: dict[str, Any] = {"device": "cuda", "backend": "fake", "threshold": 0.55}
LOST = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")


@pytest.fixture
def host(tiny_bundle: Path) -> Iterator[Inspector]:
    with Inspector.open(tiny_bundle, threads=1, threshold=0.55) as opened:
        yield opened


def draw(rng: np.random.Generator, *shape: int, dtype: str = "uint8") -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("plan", [None, "unmerged", "fused"])
def test_gives_the_results_of_the_cpu(
    fake_gpu: FakeCuda, tiny_bundle: Path, host: Inspector, rng: np.random.Generator, plan: str | None
) -> None:
    images = [draw(rng, 64, 64, 3), draw(rng, 100, 50), draw(rng, 40, 80, 3, dtype="uint16")]
    with Inspector.open(tiny_bundle, plan=plan, batches=(1, 2), **SETTINGS) as opened:
        assert opened.batch_sizes == (1, 2)
        results = [opened.inspect(image, keep_reconstruction=True) for image in images]
        for image, one, batched, streamed in zip(
            images, results, opened.inspect_batch(images), opened.stream(images), strict=True
        ):
            expected = host.inspect(image, keep_reconstruction=True)
            for result in (one, batched, streamed):
                assert_close(result.anomaly_map, expected.anomaly_map, "map", "float32")
                assert result.is_defect == expected.is_defect == bool(result.defects)
            assert_close(one.reconstruction, expected.reconstruction, "map", "float32")
        large = draw(rng, 150, 90)
        assert_close(opened.inspect_large(large).anomaly_map, host.inspect_large(large).anomaly_map, "map", "float32")
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("kind", ["imported", "scored", "tiny", "demo"])
def test_half_precision_gives_the_maps_of_the_cpu(
    fake_gpu: FakeCuda,
    tiny_bundle: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(FakeDeviceBackend, "precisions", ("fp32", "fp16"))
    path = {"tiny": tiny_bundle, "demo": DEMO}.get(kind, tmp_path / "imported.ndp")
    if kind == "imported":  # a map that nothing smooths, and whose range is its own
        import_onnx(write_model(tmp_path / "m.onnx", MAP, MAP_OUTPUT), path)
    if kind == "scored":
        body = MAP + PEAK + "  score = Add(peak, peak)\n"
        import_onnx(write_model(tmp_path / "m.onnx", body, f"{MAP_OUTPUT}, float[N] score"), path)
    image = draw(rng, *(open_bundle(path).manifest.input.height_px,) * 2, 3)
    with Inspector.open(path, threads=1, threshold=1.0) as host:
        expected = host.inspect(image)
    with Inspector.open(path, **SETTINGS, precision="fp16") as opened:
        result = opened.inspect(image)
    scale = max(1.0, float(expected.anomaly_map.max()))
    allowed = find_tolerance("engine.map", "fp16").absolute * scale
    assert float(np.abs(result.anomaly_map - expected.anomaly_map).max()) < allowed
    assert abs(result.score - expected.score) < 2 * allowed
    assert expected.score == pytest.approx({"scored": 2}.get(kind, 1) * float(expected.anomaly_map.max()), rel=1e-5)


def test_engines_are_kept_once_they_have_run_and_graphs_are_left_out_where_that_is_asked_for(
    fake_gpu: FakeCuda, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[object] = []
    monkeypatch.setattr(FakeDeviceBackend, "keep", lambda self, engines: kept.extend(engines))
    monkeypatch.setenv("NDP_RT_CUDA_GRAPHS", "off")
    with Inspector.open(tiny_bundle, **SETTINGS) as opened:
        program: Any = opened._need_session().executor
        loaded: Any = find_backend("fake")
        assert kept == loaded.loaded[-len(kept) :] and len(kept) == 2
        assert program._program.captured_sizes == ()


def test_engines_are_built_once_and_never_behind_the_users_back(fake_gpu: FakeCuda, tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"Build it with: ndp-rt build-engine .* --backend fake"):
        Inspector.open(tiny_bundle, build=False, **SETTINGS)
    with Inspector.open(tiny_bundle, **SETTINGS) as first:
        name = first.engine_hash
    with Inspector.open(tiny_bundle, build=False, **SETTINGS) as second:
        assert second.engine_hash == name
    assert fake_gpu.machine.graph_launch_count >= 2


def test_the_reference_is_swapped_between_frames(
    fake_gpu: FakeCuda, tiny_bundle: Path, rng: np.random.Generator
) -> None:
    image, good = draw(rng, SIDE, SIDE, 3), draw(rng, 80, 80, 3)
    with (
        Inspector.open(tiny_bundle, plan="staged", threads=1, threshold=0.55) as host,
        Inspector.open(tiny_bundle, **SETTINGS) as opened,
    ):
        for one in (host, opened):
            one.set_reference(good)
        assert_close(opened.inspect(image).anomaly_map, host.inspect(image).anomaly_map, "map", "float32")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("is_late", [True, False])
def test_frames_are_read_after_the_work_on_the_stream_of_the_thread_that_streams_them(
    fake_gpu: FakeCuda, tiny_bundle: Path, host: Inspector, rng: np.random.Generator, is_late: bool
) -> None:
    cuda = fake_gpu.module.cuda

    class Frame(DeviceFrame):
        """A frame that says of itself, as CuPy's arrays do, what stream is current in the thread that asks."""

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {**self.facts, "stream": cuda.get_current_stream().ptr}

    images = [draw(rng, SIDE, SIDE, 3) for _ in range(3)]
    own, before = FakeStream(fake_gpu.machine, is_eager=not is_late), cuda.get_current_stream()
    with Inspector.open(tiny_bundle, **SETTINGS) as opened:
        own.use()
        frames = opened.stream([Frame(fake_gpu, image, own) for image in images])
        before.use()
        scores = [result.score for result in frames]
        assert cuda.get_current_stream() is before
    assert_close(scores, [host.inspect(image).score for image in images], "map", "float32")


def test_a_lost_device_is_an_error_and_the_process_and_close_live_on(
    fake_gpu: FakeCuda, tiny_bundle: Path, rng: np.random.Generator
) -> None:
    image = draw(rng, SIDE, SIDE)
    opened = Inspector.open(tiny_bundle, **SETTINGS)
    opened.inspect(image)
    fake_gpu.machine.lost = LOST
    for call in (lambda: opened.inspect(image), lambda: next(opened.stream([image]))):
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure"):
            call()
    opened.close()
    with pytest.raises(ClosedError):
        opened.inspect(image)


def test_the_cpu_takes_over_from_a_lost_device_without_losing_a_frame(
    fake_gpu: FakeCuda, tiny_bundle: Path, host: Inspector, rng: np.random.Generator
) -> None:
    images = [draw(rng, SIDE, SIDE) for _ in range(7)]
    expected = [host.inspect(image).score for image in images]
    buffer = np.empty((SIDE, SIDE), np.uint8)

    def fill_buffer() -> Iterator[np.ndarray]:
        for image in images:
            buffer[...] = image
            yield buffer

    with Inspector.open(tiny_bundle, fallback=True, **SETTINGS) as opened:
        scores = []
        for result in opened.stream(fill_buffer()):
            scores.append(result.score)
            if len(scores) == 2:
                fake_gpu.machine.lost = LOST
        assert_close(scores, expected, "map", "float32")
        assert scores[-1] == expected[-1]  # the very same engine
        assert opened.inspect(images[0]).score == expected[0]
        assert "cpu" in repr(opened)


def test_the_first_frame_after_the_device_was_lost_is_inspected_on_the_cpu(
    fake_gpu: FakeCuda, tiny_bundle: Path, host: Inspector, rng: np.random.Generator
) -> None:
    images = [draw(rng, SIDE, SIDE) for _ in range(3)]
    with Inspector.open(tiny_bundle, batches=(1, 2), fallback=True, **SETTINGS) as opened:
        fake_gpu.machine.lost = LOST
        assert [r.score for r in opened.inspect_batch(images)] == [host.inspect(image).score for image in images]


def test_what_does_not_fit_together_is_refused(fake_gpu: FakeCuda, tiny_bundle: Path) -> None:
    for changes, error, message in (
        ({"device": "cuda:3"}, DeviceError, "expected one of this machine's 1 GPUs.* got 'cuda:3'"),
        ({"backend": "openvino"}, InputError, "expected device cpu for backend openvino, got 'cuda'"),
        ({"plan": "both"}, InputError, "plan on cuda: expected .*unmerged.* got 'both'"),
        ({"precision": "fp16"}, InputError, "expected precision fp32 for backend fake, got 'fp16'"),
        ({"device": "cpu"}, InputError, "for backend fake, got 'cpu'"),
    ):
        with pytest.raises(error, match=message):
            Inspector.open(tiny_bundle, **{**SETTINGS, **changes})
