"""preprocess: the definition against OpenCV's rule, and the CUDA form against both."""

import itertools
import mmap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ndp_rt.bundle.open import open_bundle
from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import HELD_AS, widen
from ndp_rt.images.preprocess import preprocess
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import definition, launch
from ndp_rt.kernels.preprocess.launch import TILE_COLUMNS, choose_tile
from ndp_rt.program.manifest import InputContract
from tests.bricks import BRICKS
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import FakeDeviceArray, Memory, copy_to_device, make_empty
from tests.kernels.conftest import CupyDevice, Device, InterpretedDevice
from tests.tolerances import assert_close

CONTRACT = InputContract(height_px=64, width_px=128, white_level_16bit=40000)
SIZES = [(64, 128), (1, 1), (1, 300), (200, 1), (63, 129), (300, 40), (40, 300), (133, 555), (128, 256), (64, 127)]
KINDS = [(0, "rgb"), (1, "bgr"), (3, "rgb"), (3, "bgr"), (4, "drop-alpha")]


def make_image(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def run_opencv(image: np.ndarray, contract: InputContract = CONTRACT, channels: str = "rgb") -> np.ndarray:
    out = np.empty((3, contract.height_px, contract.width_px), np.float32)
    preprocess(image, contract, out, channels=channels)
    return out


def define(image: np.ndarray, contract: InputContract = CONTRACT, channels: str = "rgb") -> np.ndarray:
    return definition.preprocess(
        image,
        contract.height_px,
        contract.width_px,
        channels=channels,
        white_level_16bit=contract.white_level_16bit,
    )


def run_cuda(
    device: Device,
    image: Any,
    contract: InputContract = CONTRACT,
    channels: str = "rgb",
    dtype: str = "float32",
    image_count: int | None = None,
) -> np.ndarray:
    """Return the input that the kernel makes of a device array, in float32."""
    shape = (3, contract.height_px, contract.width_px)
    out = device.make_empty(shape if image_count is None else (image_count, *shape), HELD_AS[dtype])
    launch.preprocess(device.kernels, image, out, contract, channels=channels, dtype=dtype, stream=None)
    return widen(out.get(), dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channel_count", "channels"), KINDS)
def test_the_definition_is_opencvs_rule(
    rng: np.random.Generator, size: tuple[int, int], dtype: type, channel_count: int, channels: str
) -> None:
    image = make_image(rng, (*size, channel_count) if channel_count else size, dtype)
    assert_close(run_opencv(image, channels=channels), define(image, channels=channels), "preprocess", "float32")


def test_only_covers_below_a_thousandth_of_a_pixel_set_opencv_apart(rng: np.random.Generator) -> None:
    contract = InputContract(height_px=64, width_px=2048)
    image = make_image(rng, (64, 2049), np.uint8)
    apart = np.abs(run_opencv(image, contract) - define(image, contract)).max()
    assert 1e-5 < apart < 1e-3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channel_count", "channels"), KINDS)
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator,
    device: Device,
    size: tuple[int, int],
    source: type,
    channel_count: int,
    channels: str,
) -> None:
    image = make_image(rng, (*size, channel_count) if channel_count else size, source)
    expected = define(image, channels=channels)
    for dtype in HELD_AS:
        result = run_cuda(device, device.copy(image), channels=channels, dtype=dtype)
        assert_close(result, expected, "preprocess", dtype)
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(
    ("size", "channel_count"), [((600, 2100), 3), ((900, 7), 0), ((5, 4000), 4), ((130, 4100), 1), ((2, 9000), 3)]
)
def test_large_factors_take_several_lanes_and_passes(
    rng: np.random.Generator, device: Device, size: tuple[int, int], channel_count: int
) -> None:
    image = make_image(rng, (*size, channel_count) if channel_count else size, np.uint8)
    contract = InputContract(height_px=64, width_px=64)
    result = run_cuda(device, device.copy(image), contract, "drop-alpha")
    assert_close(result, define(image, contract, "drop-alpha"), "preprocess", "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(4096, 4096, 3), (3000, 4001, 3), (2000, 3001)])
@pytest.mark.parametrize("source", [np.uint8, np.uint16])
def test_photographs_equal_the_definition(rng: np.random.Generator, shape: tuple[int, ...], source: type) -> None:
    device, contract, image = CupyDevice(), InputContract(), make_image(rng, shape, source)
    result = run_cuda(device, device.copy(image), contract, dtype="float16")
    assert_close(result, define(image, contract), "preprocess", "float16")


def test_the_cuda_form_equals_opencv_on_the_bundles_golden_images(device: Device) -> None:
    bundle = open_bundle(BRICKS)
    for raw, expected in zip(bundle.golden().raw, bundle.golden().raw_expected, strict=True):
        contract = replace(bundle.manifest.input, height_px=expected.shape[1], width_px=expected.shape[2])
        assert_close(run_cuda(device, device.copy(raw), contract), expected, "preprocess", "float32")
        assert_close(define(raw, contract), expected, "preprocess", "float32")


@pytest.mark.parametrize("white", [1, 255, 4095, 16383, 40000, 65534, 65535])
def test_without_a_resize_every_value_is_divided_exactly_as_on_the_host(device: Device, white: int) -> None:
    contract = InputContract(height_px=256, width_px=256, white_level_16bit=white)
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(run_cuda(device, device.copy(every), contract), run_opencv(every, contract))
    small = (every % 256).astype(np.uint8)
    assert np.array_equal(run_cuda(device, device.copy(small), contract), run_opencv(small, contract))


def fill(device: Device, view: Any, image: np.ndarray) -> Any:
    """Write an image to a device view of any strides, and return the view."""
    if isinstance(device, InterpretedDevice):
        view.set(image)
    else:
        view[...] = device.copy(image)
    return view


def list_layouts(device: Device, image: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Return device views that all equal `image`, each from other strides."""

    def embed(shape: tuple[int, ...], *index: object, spare: int = 0) -> Any:
        """Put the image into a larger array at `index`, with `spare` samples before it."""
        flat = device.make_empty((int(np.prod(shape)) + spare,), image.dtype)
        return fill(device, flat[spare:].reshape(*shape)[index], image)

    (h, w), rest = image.shape[:2], image.shape[2:]
    yield "dense", embed(image.shape)
    yield "not aligned", embed(image.shape, spare=1)
    yield "one column cut off", embed((h, w + 1, *rest), slice(None), slice(1, None))
    yield "padded rows", embed((h, (w + 19) // 16 * 16, *rest), slice(None), slice(0, w))
    yield "a crop", embed((h + 3, w + 8, *rest), slice(2, 2 + h), slice(4, 4 + w))
    yield "upside down", embed(image.shape, slice(None, None, -1))
    yield "mirrored", embed(image.shape, slice(None), slice(None, None, -1))
    yield "every third column", embed((2 * h, 3 * w, *rest), slice(None, None, 2), slice(1, None, 3))
    for order in itertools.permutations(range(image.ndim)):  # transposed; channels first, as torch has them
        shape = tuple(image.shape[axis] for axis in order)
        for flips in itertools.product((1, -1), repeat=image.ndim):
            back = device.make_empty((image.size,), image.dtype).reshape(*shape).transpose(*np.argsort(order).tolist())
            view = back[tuple(slice(None, None, step) for step in flips)]
            yield f"axes {order}, steps {flips}", fill(device, view, image)
    if rest in ((1,), (3,)):
        yield "the first of four channels", embed((h, w, 4), ..., slice(0, rest[0]))
        yield "the last of four channels", embed((h, w, 4), ..., slice(4 - rest[0], None))
    if rest == (3,):
        yield "blue first of four channels", embed((h, w, 4), ..., slice(2, None, -1))
        yield "every other of six channels", embed((h, w, 6), ..., slice(None, None, 2))
    if not rest:
        yield from ((f"channel {i} of three", embed((h, w, 3), ..., i)) for i in range(3))


@pytest.mark.parametrize(
    ("size", "source"),
    [((64, 128), np.uint8), ((64, 128), np.uint16), ((63, 129), np.uint8), ((90, 40), np.uint16), ((1, 7), np.uint8)],
)
@pytest.mark.parametrize(("channel_count", "channels"), [(0, "rgb"), (3, "rgb"), (3, "bgr"), (4, "drop-alpha")])
def test_strides_do_not_matter(
    rng: np.random.Generator,
    device: Device,
    size: tuple[int, int],
    source: type,
    channel_count: int,
    channels: str,
) -> None:
    image = make_image(rng, (*size, channel_count) if channel_count else size, source)
    expected = define(image, channels=channels)
    worst = 0.0
    for name, view in list_layouts(device, image):
        apart = np.abs(run_cuda(device, view, channels=channels) - expected).max()
        assert apart < 1e-6, name
        worst = max(worst, float(apart))
    assert_close(worst, 0.0, "preprocess", "float32")


class Recorder:
    """In the place of a compiled module and its kernel: keeps the arguments of the last launch."""

    def __init__(self, **options: object) -> None: ...

    def get_function(self, name: str) -> "Recorder":
        self.name = name
        return self

    def __call__(self, grid: object, block: object, args: tuple[np.generic, ...], **options: object) -> None:
        Recorder.last = self.name, [int(argument) for argument in args]


@pytest.mark.parametrize("size", [(64, 128), (63, 132), (90, 41)])
@pytest.mark.parametrize("source", [np.uint8, np.uint16])
@pytest.mark.parametrize("rest", [(), (3,), (4,)])
def test_loads_of_four_samples_are_aligned_in_every_row(
    size: tuple[int, int], source: type, rest: tuple[int, ...]
) -> None:
    """What the launcher passes is looked at without a launch."""
    width, aligned = 4 * np.dtype(source).itemsize, set()
    device = InterpretedDevice(KernelSet(Recorder))
    for name, view in list_layouts(device, np.zeros((*size, *rest), source)):
        run_cuda(device, view, channels="drop-alpha")
        entry, (address, _, image_stride, *numbers) = Recorder.last
        group_stride, row_stride = (0, numbers[0]) if entry == "preprocess_convert" else numbers[:2]
        by_four = numbers[6] > 0 if entry == "preprocess_convert" else numbers[-2] == 1
        if by_four:
            aligned.add(name)
            assert not any(number % width for number in (address, image_stride, group_stride, row_stride)), name
    assert "not aligned" not in aligned and "padded rows" in aligned
    fits = size[1] % 4 == 0 or rest == (4,)
    assert ("dense" in aligned) == fits and ("a crop" in aligned) == fits


@pytest.mark.parametrize("size", [(64, 128), (70, 200)])
@pytest.mark.parametrize("rest", [(), (3,)])
def test_a_batch_equals_its_images(
    rng: np.random.Generator, device: Device, size: tuple[int, int], rest: tuple[int, ...]
) -> None:
    images = make_image(rng, (4, *size, *rest), np.uint8)
    expected = np.stack([run_cuda(device, device.copy(image)) for image in images])
    assert np.array_equal(run_cuda(device, device.copy(images), image_count=4), expected)
    assert np.array_equal(run_cuda(device, device.copy(images)[::-2], image_count=2), expected[::-2])
    channels_first = device.copy(np.moveaxis(images, -1, 1))
    axes = (0, 2, 3, 1) if rest else (0, 2, 1)
    assert_close(run_cuda(device, channels_first.transpose(*axes), image_count=4), expected, "preprocess", "float32")


@pytest.mark.parametrize("columns", [128, 160])
@pytest.mark.parametrize("step", [1, -1])
def test_rows_may_lie_more_than_four_gigabytes_apart(
    rng: np.random.Generator, kernels: KernelSet, columns: int, step: int
) -> None:
    pitch = 2**26 + 64
    reserved = mmap.mmap(
        -1, 80 * pitch, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    )
    whole = np.frombuffer(reserved, np.uint8).reshape(80, pitch)  # only the pages that are written exist
    view = whole[::step, :columns]
    image = make_image(rng, (80, columns), np.uint8)
    view[...] = image
    contract = InputContract(height_px=64, width_px=128)
    result = run_cuda(InterpretedDevice(kernels), FakeDeviceArray(view, Memory(whole.reshape(-1))), contract)
    assert_close(result, define(image, contract), "preprocess", "float32")


@pytest.mark.parametrize("channel_count", [1, 3])
@on_every_architecture
def test_every_barrier_is_needed(rng: np.random.Generator, interpreter: Interpreter, channel_count: int) -> None:
    image = make_image(rng, (100, 700, channel_count), np.uint16)
    contract = InputContract(height_px=64, width_px=64)
    device, held = InterpretedDevice(KernelSet(interpreter.make_module)), copy_to_device(image)
    first = run_cuda(device, held, contract)
    assert_close(first, define(image, contract), "preprocess", "float32")
    assert_every_barrier_is_needed(interpreter, lambda: np.array_equal(run_cuda(device, held, contract), first))


@pytest.mark.parametrize("target", [64, 192, 1024, 32704])
def test_a_tile_has_room_for_every_sample_that_its_columns_read(target: int) -> None:
    """What the kernel computes from the first and the last tap, for every tile of many sizes."""
    for source in (*range(1, 200), 255, 256, 1000, 1023, 1025, 4096, 9999, 32767):
        index = np.arange(target, dtype=np.int64)
        if source > target:
            first, last = index * source // target, ((index + 1) * source - 1) // target
        else:
            position = np.maximum((2 * index + 1) * source - target, 0)
            first = position // (2 * target)
            last = np.minimum(first + (position % (2 * target) > 0), source - 1)
        for pixel_samples in (1, 3, 4):
            tile, room = choose_tile(source, target, pixel_samples)
            assert tile in TILE_COLUMNS and room % 4 == 0
            starts = index[::tile]
            begin = first[starts] * pixel_samples // 4 * 4
            end = (last[np.minimum(starts + tile, target) - 1] + 1) * pixel_samples
            assert (begin + room >= end).all() and (end - begin).max() + 16 * pixel_samples > room - 8


FINE = make_empty((3, 64, 128), np.float32)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (make_empty((9, 9), np.float32), r"uint8 or uint16 .* got float32 \[9, 9\].*NaN.*astype"),
        (make_empty((9, 9, 4), np.uint8), r"uint8 \[9, 9, 4\].*drop-alpha"),
        (make_empty((3, 9, 9), np.uint8), "Channels go last"),
        (make_empty((2, 9, 9, 3), np.uint8), "one image at a time"),
        (make_empty((9, 9), np.uint8)[:0], "no pixels"),
        (make_empty((9, 9), ">u2"), "own byte order.*astype"),
        (make_empty((40000, 1), np.uint8), "up to 32767 pixels a side"),
        (FakeDeviceArray(np.zeros(300, np.uint8)[1:201].view(np.uint16).reshape(10, 10), None), "multiples of 2 bytes"),
    ],
)
def test_refuses_other_images_in_the_words_of_the_host(kernels: KernelSet, image: FakeDeviceArray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        launch.preprocess(kernels, image, FINE, CONTRACT, dtype="float32", stream=None)


@pytest.mark.parametrize(
    ("out", "dtype", "words"),
    [
        (make_empty((3, 64, 64), np.float32), "float32", r"expected float32 \[3, 64, 128\], dense"),
        (make_empty((3, 64, 128), np.float16), "bfloat16", r"bfloat16 \(held as uint16\) \[3, 64, 128\]"),
        (make_empty((3, 64, 256), np.float16)[..., ::2], "float16", "not dense"),
        (make_empty((3 * 64 * 128 + 2,), np.float16)[2:].reshape(3, 64, 128), "float16", "multiple of 16 bytes"),
        (FINE, "float64", "dtype: expected one of float32, float16, bfloat16, got 'float64'"),
        (make_empty((2, 3, 64, 128), np.float32), "float32", r"expected 2 of them, as out has, got 3 of"),
    ],
)
def test_refuses_another_output(kernels: KernelSet, out: FakeDeviceArray, dtype: str, words: str) -> None:
    image = make_empty((9, 9, 3) if len(out.shape) == 3 else (3, 9, 9, 3), np.uint8)
    with pytest.raises(InputError, match=words):
        launch.preprocess(kernels, image, out, CONTRACT, dtype=dtype, stream=None)


def test_refuses_an_unknown_order_of_channels(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match="channels: expected .* got 'gbr'"):
        launch.preprocess(
            kernels, make_empty((9, 9), np.uint8), FINE, CONTRACT, channels="gbr", dtype="float32", stream=None
        )
