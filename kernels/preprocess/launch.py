"""preprocess: an image on the device to the network's input, in one pass."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.images.checks import check_channels, check_kind, check_resizable
from ndp_rt.kernels.checks import (
    ELEMENT_CODES,
    DeviceArray,
    DevicePointer,
    check_array,
    check_element_type,
    check_image_count,
)
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import KernelSet
from ndp_rt.program.manifest import InputContract

THREAD_COUNT = 256
OWNED_COUNT = 4  # source samples, or pixels, of a thread at a time
PASS_COUNT = THREAD_COUNT * OWNED_COUNT
TILE_COLUMNS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
MAX_LANE_COUNT = 32
TAPS_PER_LANE = 4
ALIGNMENT_BYTES = 16  # of the target, for stores of four elements
FILE = "preprocess/preprocess.cu"
MAX_REGISTERS = {"preprocess_convert": 56, "preprocess_resize": 64}
VARIANTS = tuple(
    Variant(
        file=FILE,
        entry=entry,
        max_registers=max_registers,
        defines={"NDP_RT_ELEMENT": code, "NDP_RT_SOURCE_BYTES": sample_bytes},
    )
    for entry, max_registers in MAX_REGISTERS.items()
    for code in ELEMENT_CODES.values()
    for sample_bytes in (1, 2)
)


class DeviceImage(Protocol):
    """An image, as `cupy.ndarray` and `ndp_rt.devices.cuda.foreign.ForeignImage` are one."""

    @property
    def data(self) -> DevicePointer: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> "np.dtype[Any]": ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The places of images' samples: in bytes, `offset` from the array's own address to the input's first plane."""

    sample_bytes: int
    rows: int
    columns: int
    channel_count: int  # used: 1 or 3
    readable_count: int  # samples from a pixel's lowest that are its own: 4 where alpha is dropped
    image_stride: int
    row_stride: int
    column_stride: int
    channel_stride: int  # from what becomes plane p to plane p + 1
    offset: int = 0

    @property
    def pixel_samples(self) -> int:
        """Samples from pixel to pixel where the used ones lie side by side; else 0."""
        count, rest = divmod(self.column_stride, self.sample_bytes)
        together = self.channel_count == 1 or abs(self.channel_stride) == self.sample_bytes
        return count if together and rest == 0 and self.channel_count <= count <= OWNED_COUNT else 0

    @property
    def first_channel(self) -> int:
        """The number of the sample of a pixel, lowest first, that is the input's first plane."""
        return self.channel_count - 1 if self.channel_stride < 0 else 0

    @property
    def channel_step(self) -> int:
        """Samples from one plane's to the next one's where they lie side by side."""
        return -1 if self.channel_stride < 0 else 1

    @property
    def lowest_offset(self) -> int:
        """From the array's own address to the lowest sample of its first pixel."""
        return self.offset + min(0, (self.channel_count - 1) * self.channel_stride)

    @property
    def row_samples(self) -> int:
        """Samples of a row that may be read, from its first pixel's lowest."""
        return (self.columns - 1) * self.pixel_samples + self.readable_count

    def is_aligned(self, address: int, *strides: int) -> bool:
        """Tell whether four samples can be loaded at once from every row."""
        size = OWNED_COUNT * self.sample_bytes
        return all(number % size == 0 for number in (address, self.image_stride, self.row_stride, *strides))


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch for one layout; the two addresses come first among the arguments."""

    entry: str
    grid: tuple[int, int, int]
    shared_bytes: int
    source_offset: int  # bytes
    target_offset: int  # elements
    arguments: tuple[np.generic, ...]


def preprocess(
    kernels: KernelSet,
    image: DeviceImage,
    out: DeviceArray,
    contract: InputContract,
    *,
    channels: str = "rgb",
    dtype: str,
    stream: Any,
) -> None:
    """Write an image to the network's input: what definition.py says, in one pass.

    Args:
        kernels: where the kernel comes from.
        image: uint8 or uint16 [h', w'], [h', w', 1], [h', w', 3] or, with "drop-alpha", [h', w', 4], device, any
            strides; never written. Where `out` has n images, n of them along a first axis.
        out: `dtype` [3, h, w] or [n, 3, h, w] of the contract's size, device, dense, at a multiple of 16 bytes;
            overwritten, never read; 0 to 1.
        contract: the network's size, and the white level of uint16.
        channels: the image's order, one of `ndp_rt.images.checks.CHANNELS`.
        dtype: float32, float16 or bfloat16 (held as uint16).
        stream: the CuPy stream that owns `out`, behind what writes `image`; the call returns before it finishes.

    Raises:
        InputError: an array differs from the above, or the image is too large to resize.
        DeviceError: the launch is refused.
    """
    check_channels(channels)
    check_element_type("dtype", dtype)
    size = (contract.height_px, contract.width_px)
    is_batch = len(out.shape) == 4
    wanted = (None, 3, *size) if is_batch else (3, *size)
    check_array("out", out, dtype, wanted, alignment_bytes=ALIGNMENT_BYTES)
    image_count = out.shape[0] if is_batch else 1
    check_image_count("out", 3 * image_count)  # along z, with a group for each plane
    address, source = image.data.ptr, np.dtype(image.dtype)
    shape, strides = tuple(image.shape), tuple(image.strides)
    if not is_batch:
        shape, strides = (1, *shape), (0, *strides)
    white = 255 if source.itemsize == 1 else contract.white_level_16bit
    misalignment = address % (OWNED_COUNT * source.itemsize)
    launch = _find_launch(source, shape, strides, misalignment, image_count, channels, size, white)
    defines = {"NDP_RT_ELEMENT": ELEMENT_CODES[dtype], "NDP_RT_SOURCE_BYTES": source.itemsize}
    kernel = kernels.function(FILE, launch.entry, defines)
    addresses = (
        np.uint64(address + launch.source_offset),
        np.uint64(out.data.ptr + launch.target_offset * out.dtype.itemsize),
    )
    kernel(launch.grid, (THREAD_COUNT,), (*addresses, *launch.arguments), launch.shared_bytes, stream)


@lru_cache(maxsize=256)
def _find_launch(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    misalignment: int,
    image_count: int,
    channels: str,
    size: tuple[int, int],
    white: int,
) -> Launch:
    """Check images of `shape`, whose first axis counts them, and choose the launch; once for frames that are alike.

    `misalignment` is the address modulo OWNED_COUNT samples.

    Raises:
        InputError: see `preprocess`.
    """
    check_kind(dtype, shape[1:], channels)
    check_resizable(*shape[1:3])
    came = f"{dtype} {list(shape[1:])}"
    if shape[0] != image_count:
        raise InputError(
            f"image: expected {image_count} of them, as out has, got {shape[0]} of {came}. Make them as many."
        )
    if not dtype.isnative:
        raise InputError(
            f"image: expected the machine's own byte order, got {came} in the other. Convert it with astype()."
        )
    if any(number % dtype.itemsize for number in (misalignment, *strides)):
        raise InputError(
            f"image: expected address and strides in multiples of {dtype.itemsize} bytes, got {came} with strides "
            f"{list(strides)}, {misalignment} bytes past an address for four values. Copy it into an array of its own."
        )
    layout = _describe(shape, strides, dtype.itemsize, channels)
    if (layout.rows, layout.columns) == size:
        return _find_convert(layout, shape[0], misalignment, white)
    return _find_resize(layout, shape[0], misalignment, size, white)


def _describe(shape: tuple[int, ...], strides: tuple[int, ...], sample_bytes: int, channels: str) -> Layout:
    """Describe images of `shape` [n, h', w'(, c)]; strides of axes of length 1, which mean nothing, become dense."""
    image_count, rows, columns = shape[:3]
    stored = shape[3] if len(shape) == 4 else 1
    channel_stride = strides[3] if stored > 1 else sample_bytes
    dense = stored * sample_bytes
    layout = Layout(
        sample_bytes=sample_bytes,
        rows=rows,
        columns=columns,
        channel_count=min(stored, 3),
        readable_count=stored if channel_stride > 0 else min(stored, 3),
        image_stride=strides[0] if image_count > 1 else 0,
        row_stride=strides[1] if rows > 1 else 0,
        column_stride=strides[2] if columns > 1 else dense,
        channel_stride=channel_stride,
    )
    if channels == "bgr" and stored > 1:
        return replace(layout, offset=2 * channel_stride, channel_stride=-channel_stride)
    return layout


def _find_convert(layout: Layout, image_count: int, misalignment: int, white: int) -> Launch:
    is_packed = layout.pixel_samples in ((1,) if layout.channel_count == 1 else (3, 4))
    is_aligned = layout.is_aligned(misalignment + layout.lowest_offset)
    groups = layout.rows * layout.columns // OWNED_COUNT
    return Launch(
        entry="preprocess_convert",
        grid=(-(-groups // THREAD_COUNT), image_count, 1),
        shared_bytes=0,
        source_offset=layout.lowest_offset,
        target_offset=0,
        arguments=(
            np.int64(layout.image_stride),
            np.int64(layout.row_stride),
            np.int64(layout.column_stride),
            np.int64(abs(layout.channel_stride)),
            np.int32(layout.rows),
            np.int32(layout.columns),
            np.int32(layout.row_samples),
            np.int32(layout.pixel_samples if is_packed and is_aligned else 0),
            np.int32(layout.channel_count),
            np.int32(layout.first_channel),
            np.int32(layout.channel_step),
            np.float32(white),
        ),
    )


def _find_resize(layout: Layout, image_count: int, misalignment: int, size: tuple[int, int], white: int) -> Launch:
    """Choose the launch for a resize; the kernel's columns are what lies nearest in memory, lowest address first."""
    (target_rows, target_columns), image_size = size, 3 * size[0] * size[1]
    row_step, column_step, target_offset = target_columns, 1, 0
    if abs(layout.column_stride) > abs(layout.row_stride) and min(layout.rows, layout.columns) > 1:
        layout = replace(
            layout,
            rows=layout.columns,
            columns=layout.rows,
            row_stride=layout.column_stride,
            column_stride=layout.row_stride,
        )
        target_rows, target_columns, row_step, column_step = target_columns, target_rows, column_step, row_step
    if layout.column_stride < 0:
        target_offset, column_step = (target_columns - 1) * column_step, -column_step
        offset = layout.offset + (layout.columns - 1) * layout.column_stride
        layout = replace(layout, offset=offset, column_stride=-layout.column_stride)
    together = layout.pixel_samples
    if together:
        offset, group_count, group_stride, sample_stride = layout.lowest_offset, 1, 0, layout.sample_bytes
        is_aligned = layout.is_aligned(misalignment + offset)
    else:  # one image of one channel for each plane
        offset, group_count, group_stride = layout.offset, layout.channel_count, layout.channel_stride
        sample_stride = layout.column_stride
        is_aligned = sample_stride == layout.sample_bytes and layout.is_aligned(misalignment + offset, group_stride)
    tile_columns, sample_count = choose_tile(layout.columns, target_columns, together or 1)
    return Launch(
        entry="preprocess_resize",
        grid=(-(-target_columns // tile_columns), target_rows, image_count * group_count),
        shared_bytes=4 * sample_count,
        source_offset=offset,
        target_offset=target_offset,
        arguments=(
            np.int64(layout.image_stride),
            np.int64(group_stride),
            np.int64(layout.row_stride),
            np.int64(sample_stride),
            np.int64(image_size),
            np.int64(row_step),
            np.int64(column_step),
            np.int32(layout.rows),
            np.int32(layout.columns),
            np.int32(layout.row_samples if together else layout.columns),
            np.int32(target_rows),
            np.int32(target_columns),
            np.int32(together or 1),
            np.int32(layout.channel_count if together else 1),
            np.int32(layout.first_channel if together else 0),
            np.int32(layout.channel_step if together else 1),
            np.int32(group_count),
            np.int32(tile_columns),
            np.int32(_count_lanes(layout.columns, target_columns)),
            np.int32(is_aligned),
            np.float32(white),
        ),
    )


def choose_tile(columns: int, target_columns: int, pixel_samples: int) -> tuple[int, int]:
    """Return how many target columns a block makes, and the most samples of a row that they are made of.

    The widest whose samples one pass of the block's threads takes, or one column where even that has more.
    """
    for tile_columns in TILE_COLUMNS:
        # Three more: a part of a pixel at either end, and linear's second tap. Before them OWNED_COUNT - 1 at most, so
        # that a row's part begins at a multiple of it.
        columns_read = min(columns, tile_columns * columns // target_columns + 3)
        sample_count = columns_read * pixel_samples + OWNED_COUNT - 1
        sample_count = -(-sample_count // OWNED_COUNT) * OWNED_COUNT
        if sample_count <= PASS_COUNT and tile_columns <= target_columns:
            break
    return tile_columns, sample_count


def _count_lanes(columns: int, target_columns: int) -> int:
    """Return how many lanes share a target pixel's columns: a power of two that leaves each TAPS_PER_LANE or so."""
    lane_count = 1
    while lane_count < MAX_LANE_COUNT and lane_count * TAPS_PER_LANE * target_columns < columns:
        lane_count *= 2
    return lane_count
