"""The GPU runner on the fake GPU: images in, maps out, several on their way, and the same answers as the CPU's."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import ClosedError, DeviceError, EngineError, InputError
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.pipeline.streaming import FrameReader
from ndp_rt.runtime.gpu_runner import GpuRunner
from tests.fakes.fake_streams import CUDARuntimeError, FakeStream
from tests.fakes.rig import Rig
from tests.tolerances import assert_close

MakeRig = Callable[..., Rig]


def open_runner(rig: Rig, channels: str = "rgb") -> GpuRunner:
    return GpuRunner(rig.bundle, rig.plan, rig.kernels, channels)


def draw(rng: np.random.Generator, *shape: int, dtype: str = "uint8") -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def expect(rig: Rig, image: np.ndarray, channels: str = "rgb") -> np.ndarray:
    """Return the smoothed map [h, w] of an image, preprocessed by OpenCV, with the same engines step by step."""
    contract = rig.bundle.manifest.input
    prepared = np.empty((1, 3, contract.height_px, contract.width_px), np.float32)
    Preprocessor(contract, channels=channels)(image, prepared[0])
    maps, _, _ = rig.plan.run(prepared)
    return smooth(maps)[0, 0]


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3), (1, 1), (50, 90, 3), (200, 31, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_image_gives_what_the_cpu_gives(
    make_rig: MakeRig, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    rig = make_rig()
    runner, image = open_runner(rig), draw(rng, *shape, dtype=dtype)
    expected = expect(rig, image)
    slot = runner.make_slot()
    runner.start(slot, (image,), 1)
    runner.finish(slot)
    assert_close(slot.smooth(0), expected, "map", "float32")
    runner.close()
    assert rig.gpu.device_heap.blocks == rig.gpu.pinned_heap.blocks == {}


def test_views_of_any_strides_and_byte_order_are_taken(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    image = draw(rng, 128, 96, 4, dtype="uint16")
    runner = open_runner(rig, "drop-alpha")
    slot = runner.make_slot()
    for view in (image[::2, ::-1], image.transpose(1, 0, 2), image.astype(">u2")):
        expected = expect(rig, np.ascontiguousarray(view, np.uint16)[..., :3])
        runner.start(slot, (view,), 1)
        runner.finish(slot)
        assert_close(slot.smooth(0), expected, "map", "float32")
    runner.close()


def test_a_batch_that_is_not_filled_gives_its_own_images(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig(batches=(1, 4))
    runner = open_runner(rig)
    images = [draw(rng, 40 + 9 * index, 64, 3) for index in range(3)]
    expected = [expect(rig, image) for image in images]
    slot = runner.make_slot()
    runner.start(slot, images, 4, keep_reconstruction=True)
    runner.finish(slot)
    for index, one in enumerate(expected):
        assert_close(slot.smooth(index), one, "map", "float32")
        picture = slot.copy_reconstruction(index)
        assert picture.shape == (64, 64, 3) and 0.0 <= picture.min() <= picture.max() <= 1.0
    assert len(slot.times) == 3
    runner.close()


@pytest.mark.parametrize("seed", range(6))
def test_streamed_frames_come_in_order_and_whole_however_late_or_early_the_gpu_works(
    make_rig: MakeRig, rng: np.random.Generator, seed: int
) -> None:
    rig = make_rig(seed=seed)
    runner = open_runner(rig)
    images = [draw(rng, 64, 64) for _ in range(8)]
    expected = [expect(rig, image) for image in images]
    slots = [runner.make_slot() for _ in range(runner.stream_slot_count)]
    buffer = np.empty((64, 64), np.uint8)

    def fill_buffer() -> Iterator[np.ndarray]:
        for image in images:
            buffer[...] = image
            yield buffer

    def start(slot: Any, image: np.ndarray) -> tuple[int, int]:
        runner.start(slot, (image,), 1)
        return runner.check_image(image)

    reader = FrameReader(fill_buffer(), start, slots)
    for frame, one in zip(reader, expected, strict=True):
        runner.finish(frame.slot)
        assert_close(frame.slot.smooth(0), one, "map", "float32")
        reader.release(frame)
    assert reader.stop()
    runner.close()


def test_slots_are_used_again(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    runner, image = open_runner(rig), draw(rng, 64, 64)
    for _ in range(5):
        slots = [runner.make_slot() for _ in range(3)]
        for slot in slots:
            runner.start(slot, (image,), 1)
        for slot in slots:
            runner.release_slot(slot)
        counts = (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count)
    again = [runner.make_slot() for _ in range(3)]
    runner.start(again[0], (image,), 1)
    assert (rig.gpu.device_heap.allocation_count, rig.gpu.pinned_heap.allocation_count) == counts
    runner.close()


def test_a_new_reference_is_the_one_that_the_cpu_would_use(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    runner, image, good = open_runner(rig), draw(rng, 64, 64, 3), draw(rng, 80, 80, 3)
    before, name = expect(rig, image), runner.engine_hash
    runner.set_reference(good)
    slot = runner.make_slot()
    runner.start(slot, (image,), 1)
    runner.finish(slot)
    assert runner.engine_hash != name and not np.allclose(slot.smooth(0), before, atol=1e-6)
    assert_close(slot.smooth(0), expect(rig, image), "map", "float32")
    runner.close()


def test_a_map_that_is_not_finite_is_refused(make_rig: MakeRig, rng: np.random.Generator) -> None:
    rig = make_rig()
    runner = open_runner(rig)
    poisoned = {name: np.full_like(value, np.nan) for name, value in rig.bundle.reference().items()}
    rig.plan.use_reference(rig.plan.make_reference(poisoned))
    slot = runner.make_slot()
    runner.start(slot, (draw(rng, 64, 64),), 1)
    runner.finish(slot)
    with pytest.raises(EngineError, match="expected finite values"):
        slot.smooth(0)
    runner.close()


def test_what_is_no_image_and_what_is_too_large_is_refused(make_rig: MakeRig) -> None:
    runner = open_runner(make_rig())
    for image, message in (
        (np.zeros((5, 5), np.float32), "Floats carry no range"),
        (np.broadcast_to(np.uint8(0), (30_000, 30_000)), "inspect_large"),
    ):
        with pytest.raises(InputError, match=message):
            runner.check_image(image)
    runner.close()


def test_a_lost_device_is_said_while_starting_and_while_waiting_and_closing_works(
    make_rig: MakeRig, rng: np.random.Generator
) -> None:
    rig = make_rig()
    runner, image = open_runner(rig), draw(rng, 64, 64)
    slot = runner.make_slot()
    runner.start(slot, (image,), 1)
    rig.gpu.machine.lost = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")
    for call in (lambda: runner.finish(slot), lambda: runner.start(slot, (image,), 1)):
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure"):
            call()
    runner.close()
    with pytest.raises(ClosedError):
        runner.start(slot, (image,), 1)


class DeviceFrame:
    """A frame that another library writes on the GPU, on a stream of its own, and hands over before it is there."""

    def __init__(self, rig: Rig, image: np.ndarray, stream: FakeStream) -> None:
        runtime = rig.gpu.module.cuda.runtime
        source, self.pointer = runtime.hostAlloc(image.nbytes, 0), runtime.malloc(image.nbytes)
        rig.gpu.pinned_heap.blocks[source][:] = np.frombuffer(image.tobytes(), np.uint8)
        runtime.memcpyAsync(self.pointer, source, image.nbytes, runtime.memcpyHostToDevice, stream.ptr)
        self.shape = image.shape
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": image.shape,
            "typestr": image.dtype.str,
            "data": (self.pointer, False),
            "stream": stream.ptr,
        }


@pytest.mark.parametrize("seed", range(4))
def test_frames_on_the_gpu_are_waited_for_and_read_where_they_are(
    make_rig: MakeRig, rng: np.random.Generator, seed: int
) -> None:
    rig = make_rig(batches=(1, 2), seed=seed)
    runner = open_runner(rig)
    images = [draw(rng, 64, 64, 3), draw(rng, 90, 50)]
    expected = [expect(rig, image) for image in images]
    slot = runner.make_slot()
    late = FakeStream(rig.gpu.machine, is_eager=False)  # works only when somebody waits for it
    frames = [DeviceFrame(rig, image, late) for image in images]
    allocated, waited = rig.gpu.pinned_heap.allocation_count, rig.gpu.machine.synchronisation_count
    assert [runner.check_image(frame) for frame in frames] == [image.shape[:2] for image in images]
    runner.start(slot, frames, 2)
    assert (rig.gpu.pinned_heap.allocation_count, rig.gpu.machine.synchronisation_count) == (allocated, waited)
    runner.finish(slot)
    for index, one in enumerate(expected):
        assert_close(slot.smooth(index), one, "map", "float32")
    runner.start(slot, (DeviceFrame(rig, images[0], late), images[1]), 2)  # one there, one on the host
    runner.finish(slot)
    for index, one in enumerate(expected):
        assert_close(slot.smooth(index), one, "map", "float32")
    runner.close()


def test_what_is_no_array_of_images_is_refused_before_anything_runs(make_rig: MakeRig) -> None:
    rig = make_rig()
    runner = open_runner(rig)
    slot = runner.make_slot()
    frame = DeviceFrame(rig, np.zeros((8, 8, 3), np.uint8), FakeStream(rig.gpu.machine, is_eager=True))
    frame.__cuda_array_interface__["typestr"] = "<f4"
    operations = rig.gpu.machine.operation_count
    for image in (frame, "image.png"):
        with pytest.raises(InputError):
            runner.check_image(image)
            runner.start(slot, (image,), 1)
    assert rig.gpu.machine.operation_count == operations
    runner.close()
