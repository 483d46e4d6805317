"""The executor on the fake GPU: images in, maps out, several on their way, and the same answers as the CPU's."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.pipeline.stream import FrameStream
from ndp_rt.runtime.cuda import CudaBatch, CudaExecutor
from ndp_rt.runtime.open import make_asset_maker
from tests.fakes.device_frame import DeviceFrame
from tests.fakes.fake_streams import CUDARuntimeError, FakeStream
from tests.fakes.rig import Rig
from tests.tolerances import assert_close

MakeRig = Callable[..., Rig]


def open_executor(rig: Rig, channels: str = "rgb") -> CudaExecutor:
    maker = make_asset_maker(rig.bundle, EngineSpec())
    return CudaExecutor(rig.bundle, rig.program, rig.kernels, maker, channels=channels)


def read_map(batch: CudaBatch, index: int = 0) -> np.ndarray:
    batch.score(index)
    return batch.read_map(index)


def draw(rng: np.random.Generator, *shape: int, dtype: str = "uint8") -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def expect(rig: Rig, image: np.ndarray, channels: str = "rgb") -> np.ndarray:
    """Return the smoothed map [h, w] of an image, preprocessed by OpenCV, with the same engines step by step."""
    contract = rig.bundle.manifest.input
    prepared = np.empty((1, 3, contract.height_px, contract.width_px), np.float32)
    Preprocessor(contract, channels=channels)(image, prepared[0])
    maps, _ = rig.program.run(prepared)
    return smooth(maps)[0, 0]


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3), (1, 1), (50, 90, 3), (200, 31, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_image_gives_what_the_cpu_gives(
    make_rig: MakeRig, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    rig = make_rig()
    executor, image = open_executor(rig), draw(rng, *shape, dtype=dtype)
    expected = expect(rig, image)
    batch = executor.make_batch()
    executor.start(batch, (image,), 1)
    executor.finish(batch)
    assert_close(read_map(batch), expected, "map", "float32")
    executor.close()
    assert rig.gpu.device_heap.blocks == rig.gpu.pinned_heap.blocks == {}


def test_views_of_any_strides_and_byte_order_are_taken(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    image = draw(rng, 128, 96, 4, dtype="uint16")
    executor = open_executor(rig, "drop-alpha")
    batch = executor.make_batch()
    for view in (image[::2, ::-1], image.transpose(1, 0, 2), image.astype(">u2")):
        expected = expect(rig, np.ascontiguousarray(view, np.uint16)[..., :3])
        executor.start(batch, (view,), 1)
        executor.finish(batch)
        assert_close(read_map(batch), expected, "map", "float32")
    executor.close()


def test_a_batch_that_is_not_filled_gives_its_own_images(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig(batches=(1, 4))
    executor = open_executor(rig)
    images = [draw(rng, 40 + 9 * index, 64, 3) for index in range(3)]
    expected = [expect(rig, image) for image in images]
    batch = executor.make_batch()
    executor.start(batch, images, 4, outputs=("reconstruction",))
    executor.finish(batch)
    for index, one in enumerate(expected):
        assert_close(read_map(batch, index), one, "map", "float32")
        picture = batch.copy_output("reconstruction", index)
        assert picture.shape == (64, 64, 3) and 0.0 <= picture.min() <= picture.max() <= 1.0
    assert len(batch.times) == 3
    executor.close()


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("seed", range(6))
def test_streamed_frames_come_in_order_and_whole_however_late_or_early_the_gpu_works(
    make_rig: MakeRig, rng: np.random.Generator, seed: int
) -> None:
    rig = make_rig(seed=seed)
    executor = open_executor(rig)
    images = [draw(rng, 64, 64) for _ in range(8)]
    expected = [expect(rig, image) for image in images]
    session: Any = SimpleNamespace(
        executor=executor, check_image=executor.check_image, options=SimpleNamespace(can_fall_back=False)
    )
    buffer = np.empty((64, 64), np.uint8)

    def fill_buffer() -> Iterator[np.ndarray]:
        for image in images:
            buffer[...] = image
            yield buffer

    stream = FrameStream(session, fill_buffer(), (), executor.share_streams())
    for frame, one in zip(stream, expected, strict=True):
        batch: Any = frame.inner
        executor.finish(batch)
        assert_close(read_map(batch), one, "map", "float32")
        stream.release(frame)
    stream.close()
    executor.close()


def test_slots_are_used_again(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    executor, image = open_executor(rig), draw(rng, 64, 64)
    for _ in range(5):
        batches = [executor.make_batch() for _ in range(3)]
        for batch in batches:
            executor.start(batch, (image,), 1)
        for batch in batches:
            executor.release_batch(batch)
        counts = (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count)
    again = [executor.make_batch() for _ in range(3)]
    executor.start(again[0], (image,), 1)
    assert (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count) == counts
    executor.close()


def test_a_new_reference_is_the_one_that_the_cpu_would_use(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    executor, image, good = open_executor(rig), draw(rng, 64, 64, 3), draw(rng, 80, 80, 3)
    before, name = expect(rig, image), executor.engine_hash
    executor.set_asset(good)
    batch = executor.make_batch()
    executor.start(batch, (image,), 1)
    executor.finish(batch)
    assert executor.engine_hash != name and not np.allclose(read_map(batch), before, atol=1e-6)
    assert_close(read_map(batch), expect(rig, image), "map", "float32")
    executor.close()


def test_a_new_reference_makes_no_frame_wait_that_is_on_its_way(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    executor, image = open_executor(rig), draw(rng, 64, 64, 3)
    batch = executor.make_batch()
    executor.start(batch, (image,), 1)
    heaps = (rig.gpu.device_heap, rig.gpu.pinned_heap)
    before = [(heap.allocation_count, heap.free_count) for heap in heaps]  # each would wait for the whole GPU
    for _ in range(3):
        executor.set_asset(draw(rng, 80, 80, 3))
    assert [(heap.allocation_count, heap.free_count) for heap in heaps] == before
    executor.close()


def test_a_map_that_is_not_finite_is_refused(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    executor = open_executor(rig)
    poisoned = {name: np.full_like(value, np.nan) for name, value in rig.bundle.read_asset("reference").items()}
    rig.program.use_assets(rig.program.prepare_assets({"reference": poisoned}))
    batch = executor.make_batch()
    executor.start(batch, (draw(rng, 64, 64),), 1)
    executor.finish(batch)
    with pytest.raises(EngineError, match="expected finite values"):
        read_map(batch)
    executor.close()


def test_what_is_no_image_and_what_is_too_large_is_refused(make_rig: MakeRig) -> None:
    executor = open_executor(make_rig())
    for image, message in (
        (np.zeros((5, 5), np.float32), "Floats carry no range"),
        (np.broadcast_to(np.uint8(0), (30_000, 30_000)), "inspect_large"),
    ):
        with pytest.raises(InputError, match=message):
            executor.check_image(image)
    executor.close()


def test_a_lost_device_is_said_while_starting_and_while_waiting_and_closing_works(
    make_rig: MakeRig, rng: np.random.Generator
) -> None:
    rig = make_rig()
    executor, image = open_executor(rig), draw(rng, 64, 64)
    batch = executor.make_batch()
    executor.start(batch, (image,), 1)
    rig.gpu.machine.lost = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")
    for call in (lambda: executor.finish(batch), lambda: executor.start(batch, (image,), 1)):
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure"):
            call()
    executor.close()
    with pytest.raises(ClosedError):
        executor.start(batch, (image,), 1)


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("seed", range(4))
def test_frames_on_the_gpu_are_waited_for_and_read_where_they_are(
    make_rig: MakeRig, rng: np.random.Generator, seed: int
) -> None:
    rig = make_rig(batches=(1, 2), seed=seed)
    executor = open_executor(rig)
    images = [draw(rng, 64, 64, 3), draw(rng, 90, 50)]
    expected = [expect(rig, image) for image in images]
    batch = executor.make_batch()
    late = FakeStream(rig.gpu.machine, is_eager=False)  # works only when somebody waits for it
    frames = [DeviceFrame(rig.gpu, image, late) for image in images]
    allocated, waited = rig.gpu.pinned_heap.allocation_count, rig.gpu.machine.synchronisation_count
    assert [executor.check_image(frame) for frame in frames] == [image.shape[:2] for image in images]
    executor.start(batch, frames, 2)
    assert (rig.gpu.pinned_heap.allocation_count, rig.gpu.machine.synchronisation_count) == (allocated, waited)
    executor.finish(batch)
    for index, one in enumerate(expected):
        assert_close(read_map(batch, index), one, "map", "float32")
    executor.start(batch, (DeviceFrame(rig.gpu, images[0], late), images[1]), 2)  # one there, one on the host
    executor.finish(batch)
    for index, one in enumerate(expected):
        assert_close(read_map(batch, index), one, "map", "float32")
    executor.close()


def test_what_is_no_array_of_images_is_refused_before_anything_runs(make_rig: MakeRig) -> None:
    rig = make_rig()
    executor = open_executor(rig)
    batch = executor.make_batch()
    frame = DeviceFrame(rig.gpu, np.zeros((8, 8, 3), np.uint8), FakeStream(rig.gpu.machine, is_eager=True))
    frame.facts["typestr"] = "<f4"
    operations = rig.gpu.machine.operation_count
    for image in (frame, "image.png"):
        with pytest.raises(InputError):
            executor.check_image(image)
            executor.start(batch, (image,), 1)
    assert rig.gpu.machine.operation_count == operations
    executor.close()


def test_every_step_is_timed_by_itself(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.runtime.cuda_profile.MEDIAN_COUNT", 1)
    monkeypatch.setattr("ndp_rt.runtime.cuda_profile.STEP_REPEATS", 1)
    executor = open_executor(make_rig())
    assert set(executor.profile()) == {step.name for step in executor.program.list_steps(1)}
    executor.close()
