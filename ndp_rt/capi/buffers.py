"""Reads and writes the C caller's memory as NumPy arrays, without a copy; needs a process that loaded libndp_rt.so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _ndp_rt_bridge import ffi, lib
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray
from ndp_rt.decide.decision import lowest_reaching
from ndp_rt.decide.regions import Defect
from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.masks import take_ignore_mask
from ndp_rt.result import Result

NO_MAP = np.empty((0, 0), np.float32)
IMAGE_BYTES = ffi.sizeof("ndp_rt_image")
DEFECT_BYTES = ffi.sizeof("ndp_rt_defect")
PLANES_BYTES = ffi.offsetof("ndp_rt_result", "defects")  # of ndp_rt_result, up to which all is as the caller gave it
MAX_KEPT_FRAMES = 256
LEGACY_STREAM = 1  # cudaStreamLegacy; 0 is no valid number in __cuda_array_interface__

# Of each format: type of a value, values of a pixel, and which of them make the image, in RGB order.
FORMATS: dict[int, tuple[np.dtype[Any], int, Any]] = {
    lib.NDP_RT_PIXEL_GREY8: (np.dtype(np.uint8), 1, None),
    lib.NDP_RT_PIXEL_GREY16: (np.dtype(np.uint16), 1, None),
    lib.NDP_RT_PIXEL_RGB8: (np.dtype(np.uint8), 3, slice(0, 3)),
    lib.NDP_RT_PIXEL_BGR8: (np.dtype(np.uint8), 3, slice(None, None, -1)),
    lib.NDP_RT_PIXEL_RGBA8: (np.dtype(np.uint8), 4, slice(0, 3)),
    lib.NDP_RT_PIXEL_BGRA8: (np.dtype(np.uint8), 4, slice(2, None, -1)),
    lib.NDP_RT_PIXEL_RGB16: (np.dtype(np.uint16), 3, slice(0, 3)),
    lib.NDP_RT_PIXEL_BGR16: (np.dtype(np.uint16), 3, slice(None, None, -1)),
}


class DeviceImage:
    """An image in a GPU's memory, as `__cuda_array_interface__` describes it."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.shape = interface["shape"]
        self.__cuda_array_interface__ = interface


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image, and where its results go: arrays over the caller's memory, which they neither own nor keep."""

    image: Any
    map_out: NDArray[np.float32] | None  # as `Inspector.inspect` takes it
    mask: NDArray[np.uint8] | None


_kept: dict[bytes, Frame] = {}


def take_frame(image: Any, result: Any) -> Frame:
    """Return an ndp_rt_image and the planes of an ndp_rt_result, both checked by the library, as arrays.

    A grabber comes back with the same few buffers, so arrays are kept by the bytes of both structs: after an inspection
    the processor's caches are cold, and making them anew takes half of a call's way through Python.
    """
    key = ffi.buffer(image, IMAGE_BYTES)[:] + ffi.buffer(result, PLANES_BYTES)[:]
    frame = _kept.get(key)
    if frame is not None:
        return frame
    has_map, has_mask = result.map != ffi.NULL, result.mask != ffi.NULL
    map_out, mask = None if has_mask else NO_MAP, None  # a mask is made from a map
    if has_map:
        map_out = _take_plane(image, result.map, result.map_needed_bytes, result.map_stride_bytes, np.float32)
    if has_mask:
        mask = _take_plane(image, result.mask, result.mask_needed_bytes, result.mask_stride_bytes, np.uint8)
    frame = Frame(image=take_image(image), map_out=map_out, mask=mask)
    if len(_kept) >= MAX_KEPT_FRAMES:
        _kept.clear()
    _kept[key] = frame
    return frame


def take_image(image: Any) -> Any:
    """Return an ndp_rt_image, checked by the library, as an array that reads the caller's memory."""
    dtype, value_count, chosen = FORMATS[image.pixel_format]
    shape: tuple[int, ...] = (image.height_px, image.width_px)
    strides: tuple[int, ...] = (image.stride_bytes, value_count * dtype.itemsize)
    if value_count > 1:
        shape, strides = (*shape, value_count), (*strides, dtype.itemsize)
    if image.memory == lib.NDP_RT_MEMORY_CUDA:
        return _take_device_image(image, dtype, shape, strides, chosen)
    pixels = np.ndarray(shape, dtype, _view(image.pixels, _count_bytes(shape, strides, dtype)), 0, strides)
    return pixels if chosen is None else pixels[..., chosen]


def _take_device_image(
    image: Any, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], chosen: Any
) -> DeviceImage:
    address = int(ffi.cast("uintptr_t", image.pixels))
    if chosen is not None:
        first, _, step = chosen.indices(shape[-1])
        address += first * dtype.itemsize
        shape, strides = (*shape[:-1], 3), (*strides[:-1], step * dtype.itemsize)
    return DeviceImage(
        {
            "version": 3,
            "data": (address, True),
            "shape": shape,
            "strides": strides,
            "typestr": dtype.str,
            "stream": int(ffi.cast("uintptr_t", image.cuda_stream)) or LEGACY_STREAM,
        }
    )


def _take_plane(image: Any, address: Any, byte_count: int, stride_bytes: int, dtype: type[Any]) -> NDArray[Any]:
    strides = (stride_bytes, np.dtype(dtype).itemsize)
    shape = (image.height_px, image.width_px)
    plane: NDArray[Any] = np.ndarray(shape, dtype, _view(address, byte_count), 0, strides)
    return plane


def write_result(result: Result, mask: NDArray[np.uint8] | None, out: Any) -> None:
    """Write everything but the map, which is there already, to an ndp_rt_result and its mask."""
    out.score, out.threshold, out.is_defect = result.score, result.threshold, result.is_defect
    times = result.timings_ms
    out.preprocess_ms, out.engine_ms = times["preprocess"], times["engine"]
    out.postprocess_ms, out.total_ms = times["postprocess"], times["total"]
    if mask is not None:
        _write_mask(result, mask)
    out.defect_count = len(result.defects)
    if out.defects == ffi.NULL:
        return
    first = ffi.cast("char *", out.defects)
    for index, defect in enumerate(result.defects[: out.defect_capacity]):
        target = ffi.cast("ndp_rt_defect *", first + index * out.defect_struct_size)  # the caller's may be shorter
        target.x_px, target.y_px = defect.x_px, defect.y_px
        target.width_px, target.height_px = defect.width_px, defect.height_px
        target.area_px, target.peak = defect.area_px, defect.peak
        target.x_mm, target.y_mm = _or_nan(defect.x_mm), _or_nan(defect.y_mm)
        target.width_mm, target.height_mm = _or_nan(defect.width_mm), _or_nan(defect.height_mm)
        target.area_mm2 = _or_nan(defect.area_mm2)
    if out.defect_struct_size == DEFECT_BYTES:
        _write_outlines(result.defects, out)


def _write_outlines(defects: Sequence[Defect], out: Any) -> None:
    """Write the outlines of the listed defects that there is room for, one after the other, and count all points."""
    has_points, free = out.points != ffi.NULL, 0
    for index, defect in enumerate(defects[: out.defect_capacity]):
        target, contour = out.defects[index], defect.contour
        target.first_point, target.point_count = free, 0
        if has_points and contour is not None and free + len(contour) <= out.point_capacity:
            ffi.memmove(out.points + free, np.ascontiguousarray(contour, np.int32), contour.nbytes)
            target.point_count = len(contour)
            free += len(contour)
    out.point_count = sum(len(one.contour) for one in defects if one.contour is not None) if has_points else 0


def _write_mask(result: Result, mask: NDArray[np.uint8]) -> None:
    if not result.is_defect:  # whatever the map's scaling rounds to
        mask.fill(0)
        return
    if result.large is None:
        np.greater_equal(result.anomaly_map, lowest_reaching(result.map_threshold), out=mask.view(np.bool_))
    else:
        mask.view(np.bool_)[:] = result.make_mask()
    np.negative(mask, out=mask)  # 1 becomes 255


def make_options(bundle: Any, options: Any) -> dict[str, Any]:
    """Return the arguments of `Inspector.open` for an ndp_rt_open_options, checked by the library."""
    flags, count = options.flags, options.batch_size_count
    return {
        "bundle": _read(bundle, "bundle"),
        "device": _read_or(options.device, "device", "cpu"),
        "backend": _read_or(options.backend, "backend", None),
        "precision": _read_or(options.precision, "precision", "fp32"),
        "plan": _read_or(options.plan, "plan", None),
        "batches": [options.batch_sizes[i] for i in range(count)] if count else None,
        "threads": options.threads or None,
        "threshold": options.threshold if flags & lib.NDP_RT_OPEN_THRESHOLD else None,
        "mm_per_pixel": options.mm_per_pixel or None,
        "white_level": options.white_level_16bit or None,
        "require_signature": _read_or(options.require_signature, "require_signature", None),
        "ignore_mask": _read_mask(options.ignore_mask),
        "smallest_area_px": options.smallest_area_px or None,
        "smallest_area_mm2": options.smallest_area_mm2 or None,
        "contours": bool(flags & lib.NDP_RT_OPEN_CONTOURS),
        "build": not flags & lib.NDP_RT_OPEN_NO_BUILD,
        "fallback": bool(flags & lib.NDP_RT_OPEN_FALLBACK),
    }


def _read(text: Any, name: str) -> str:
    try:
        return str(ffi.string(text).decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: expected UTF-8, got {ffi.string(text)!r}.") from error


def _read_or(text: Any, name: str, default: str | None) -> Any:
    if text == ffi.NULL:
        return default
    if not (value := _read(text, name)):
        raise InputError(f"{name}: expected a name or a path, or NULL for the default, got an empty one.")
    return value


def _read_mask(path: Any) -> BoolArray | None:
    """Return the mask of a file; what is wrong with it is an argument's fault, and C has no status for image files."""
    name = _read_or(path, "ignore_mask", None)
    try:
        return None if name is None else take_ignore_mask(name)
    except ImageFileError as error:
        raise InputError(f"ignore_mask: {error}") from error


def _view(address: Any, byte_count: int) -> Any:
    return ffi.buffer(ffi.cast("char *", address), byte_count)


def _count_bytes(shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + dtype.itemsize


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
