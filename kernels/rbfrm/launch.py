"""rbfrm: features rebuilt from the reference's patches (eq. 3-5).

Results depend on the batch size in their last bits, since the sum over a patch may be cut into parts; the same call
always gives the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import (
    ELEMENT_CODES,
    DeviceArray,
    check_apart,
    check_array,
    check_element_type,
    get_address,
)
from ndp_rt.kernels.flags import SHARED_LIMIT_BYTES, Variant
from ndp_rt.kernels.load import Kernel, KernelSet
from ndp_rt.program.tensors import TensorSpec

FILE = "rbfrm/rbfrm.cu"
PATCH_SIZES = (2, 4)
SMALL_TILE, LARGE_TILE = 64, 128
TENSOR_CORE_TYPES = ("float16", "bfloat16")
BFLOAT16_FROM = 80  # compute capability of the first tensor cores that know bfloat16
PITCH_STEP = 64  # rows of matrices are padded to multiples of it: whole steps and whole vectors
BLOCK_THREADS = 128
PREPARE_THREADS = 256
ALIGNMENT_BYTES = 16
# A sum over a patch is cut into parts while there are fewer tiles than this: one for each multiprocessor of the largest
# GPUs. The parts' sums are then at most 128 tiles of 64 x 64 float32, 2 MB, and stay in L2.
BLOCK_TARGET = 128
MIN_PART_STEPS = 4  # fewer would leave a block waiting for its first step most of its time
# Large tiles halve what is read from L2; with fewer than two for each multiprocessor, small ones fill the GPU better.
MIN_LARGE_TILES = 256


def _make_defines(dtype: str, size: int, tile: int) -> dict[str, int]:
    return {"NDP_RT_ELEMENT": ELEMENT_CODES[dtype], "NDP_RT_PATCH": size, "NDP_RT_TILE": tile}


def _list_variants() -> tuple[Variant, ...]:
    forms = {  # with their registers and tiles
        "rbfrm_prepare": (40, (SMALL_TILE,)),
        "rbfrm_combine": (64, (SMALL_TILE,)),
        "rbfrm_weights": (255, (SMALL_TILE, LARGE_TILE)),
        "rbfrm_rebuild": (255, (SMALL_TILE, LARGE_TILE)),
    }
    return tuple(
        Variant(
            file=FILE,
            entry=entry,
            max_registers=max_registers,
            defines=_make_defines(dtype, size, tile),
            architectures=tuple(a for a in SHARED_LIMIT_BYTES if dtype != "bfloat16" or a >= BFLOAT16_FROM),
        )
        for entry, (max_registers, tiles) in forms.items()
        for dtype in ELEMENT_CODES
        for tile in tiles
        if tile == SMALL_TILE or dtype in TENSOR_CORE_TYPES
        for size in PATCH_SIZES
    )


VARIANTS = _list_variants()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """How one call is laid out: sizes, tiles, parts and where things lie in the scratch memory."""

    row_count: int  # n N
    reference_count: int  # M
    pitch: int  # L, padded
    weights_pitch: int  # M, padded
    weights_tile: int
    weights_tile_count: int
    rebuild_tile: int
    rebuild_tile_count: int
    part_steps: int
    part_count: int
    dots_offset: int
    squares_offset: int
    scratch_bytes: int


def _pad(count: int) -> int:
    return -(-count // PITCH_STEP) * PITCH_STEP


def _choose_tile(rows: int, columns: int, dtype: str) -> tuple[int, int]:
    """Return the side of the tiles that [rows, columns] is cut into, and their number."""
    counts = {tile: -(-rows // tile) * -(-columns // tile) for tile in (LARGE_TILE, SMALL_TILE)}
    is_large = dtype in TENSOR_CORE_TYPES and counts[LARGE_TILE] >= MIN_LARGE_TILES
    tile = LARGE_TILE if is_large else SMALL_TILE
    return tile, counts[tile]


def _lay_out(shape: tuple[int, int, int, int], reference_count: int, size: int, dtype: str) -> _Work:
    """Lay out a call for features of `shape` [n, c, h, w] against M = reference_count patches."""
    n, c, h, w = shape
    rows, length = n * (h // size) * (w // size), c * size * size
    pitch, weights_pitch = _pad(length), _pad(reference_count)
    tile, tile_count = _choose_tile(rows, reference_count, dtype)
    steps = pitch // (64 if tile == SMALL_TILE and dtype in TENSOR_CORE_TYPES else 32)  # STEP of rbfrm_tile.cuh
    wanted = max(1, min(BLOCK_TARGET // tile_count, steps // MIN_PART_STEPS))
    part_steps = -(-steps // wanted)
    part_count = -(-steps // part_steps)  # no part is empty
    rebuild_tile, rebuild_tile_count = _choose_tile(rows, length, dtype)
    # Every offset is a multiple of 128, since the pitch is one of 64 elements.
    dots_offset = rows * weights_pitch * (2 if dtype in TENSOR_CORE_TYPES else 4)
    squares_offset = dots_offset + (part_count * rows * weights_pitch * 4 if part_count > 1 else 0)
    return _Work(
        row_count=rows,
        reference_count=reference_count,
        pitch=pitch,
        weights_pitch=weights_pitch,
        weights_tile=tile,
        weights_tile_count=tile_count,
        rebuild_tile=rebuild_tile,
        rebuild_tile_count=rebuild_tile_count,
        part_steps=part_steps,
        part_count=part_count,
        dots_offset=dots_offset,
        squares_offset=squares_offset,
        scratch_bytes=squares_offset + (part_count * rows * 4 if part_count > 1 else 0),
    )


def _check_sizes(name: str, shape: tuple[int, ...], size: int) -> None:
    if size not in PATCH_SIZES:
        raise InputError(f"patch size K: expected {' or '.join(map(str, PATCH_SIZES))}, got {size}.")
    if len(shape) != 4 or min(shape) < 1 or shape[2] % size or shape[3] % size:
        raise InputError(f"{name}: expected [n, c, h, w], h and w multiples of {size}, got {list(shape)}.")


def find_rbfrm_patches_shape(reference_shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return [M, pitch]: the shape of `patches` and `unit_patches` for a reference [1, c, h', w'] and K = size.

    Raises:
        InputError: h' or w' is no multiple of K, or K is neither 2 nor 4.
    """
    _check_sizes("reference", reference_shape, size)
    _, c, h, w = reference_shape
    return (h // size) * (w // size), _pad(c * size * size)


def count_rbfrm_scratch_bytes(n: int, c: int, h: int, w: int, reference_count: int, size: int, *, dtype: str) -> int:
    """Return the bytes of scratch memory that `rbfrm` needs for features [n, c, h, w].

    Args:
        n: images.
        c: channels.
        h: rows.
        w: columns.
        reference_count: M, the number of the reference's patches.
        size: K.
        dtype: the features' type.

    Raises:
        InputError: h or w is no multiple of K, K is neither 2 nor 4, or dtype another.
    """
    check_element_type("dtype", dtype)
    _check_sizes("features", (n, c, h, w), size)
    return _lay_out((n, c, h, w), reference_count, size, dtype).scratch_bytes


def prepare_rbfrm(
    kernels: KernelSet,
    reference: DeviceArray,
    patches: DeviceArray,
    unit_patches: DeviceArray,
    size: int,
    *,
    dtype: str,
    stream: Any,
) -> None:
    """Cut a reference into patches, as they are and at length 1; once for each reference.

    Args:
        kernels: where the kernel comes from.
        reference: dtype [1, c, h', w'], device, dense; h' and w' multiples of K.
        patches: dtype of `find_rbfrm_patches_shape`, device, dense; overwritten, never read.
        unit_patches: the same.
        size: K, 2 or 4.
        dtype: float32, float16 or bfloat16 (held as uint16).
        stream: the CuPy stream that owns the patches; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_element_type("dtype", dtype)
    shape = find_rbfrm_patches_shape(reference.shape, size)
    check_array("reference", reference, dtype, (1, *reference.shape[1:]))
    for name, array in (("patches", patches), ("unit_patches", unit_patches)):
        check_array(name, array, dtype, shape, alignment_bytes=ALIGNMENT_BYTES)
        check_apart(name, array, "reference", reference)
    check_apart("unit_patches", unit_patches, "patches", patches)
    addresses = tuple(get_address(array) for array in (reference, patches, unit_patches))
    kernel = kernels.function(FILE, "rbfrm_prepare", _make_defines(dtype, size, SMALL_TILE))
    kernel((shape[0],), (PREPARE_THREADS,), addresses + _pack(*reference.shape[1:], shape[1]), stream=stream)


def rbfrm(
    kernels: KernelSet,
    features: DeviceArray,
    patches: DeviceArray,
    unit_patches: DeviceArray,
    out: DeviceArray,
    scratch: DeviceArray,
    size: int,
    *,
    dtype: str,
    stream: Any,
) -> None:
    """Rebuild features from the reference's patches (eq. 3-5).

    Args:
        kernels: where the kernels come from.
        features: dtype [n, c, h, w], device, dense; h and w multiples of K.
        patches: dtype [M, pitch], device, dense, as `prepare_rbfrm` filled them from a reference with the same c; the
            features may have another number of patches.
        unit_patches: the same.
        out: dtype [n, c, h, w], device, dense; overwritten, never read.
        scratch: uint8 [count_rbfrm_scratch_bytes(...)] or longer, device, dense; overwritten.
        size: K, 2 or 4.
        dtype: float32, float16 or bfloat16 (held as uint16).
        stream: the CuPy stream that owns `out` and `scratch`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: a launch is refused.
        EngineError: bfloat16 on a GPU below compute capability 8.0.
    """
    check_element_type("dtype", dtype)
    _check_sizes("features", features.shape, size)
    n, c, h, w = features.shape
    unit_bytes = size * features.dtype.itemsize  # a row of a patch is read and written at once
    check_array("features", features, dtype, (n, c, h, w), alignment_bytes=unit_bytes)
    check_array("out", out, dtype, (n, c, h, w), alignment_bytes=unit_bytes)
    check_array("patches", patches, dtype, (None, _pad(c * size * size)), alignment_bytes=ALIGNMENT_BYTES)
    check_array("unit_patches", unit_patches, dtype, patches.shape, alignment_bytes=ALIGNMENT_BYTES)
    work = _lay_out((n, c, h, w), patches.shape[0], size, dtype)
    check_array("scratch", scratch, "uint8", (None,), alignment_bytes=ALIGNMENT_BYTES)
    if scratch.shape[0] < work.scratch_bytes:
        raise InputError(
            f"scratch: expected {work.scratch_bytes} bytes for features {[n, c, h, w]} in {dtype}, K = {size} and M = "
            f"{work.reference_count}, got {scratch.shape[0]}. count_rbfrm_scratch_bytes() tells how many."
        )
    for name, array in (("features", features), ("out", out)):
        check_apart("scratch", scratch, name, array)
    check_apart("out", out, "patches", patches)
    _launch(kernels, (features, patches, unit_patches, out, scratch), work, size, dtype, stream)


def _pack(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(value) for value in values)


def _launch(
    kernels: KernelSet, arrays: tuple[DeviceArray, ...], work: _Work, size: int, dtype: str, stream: Any
) -> None:
    def find_kernel(entry: str, tile: int = SMALL_TILE) -> Kernel:
        return kernels.function(FILE, entry, _make_defines(dtype, size, tile))

    features, patches, unit_patches, out = (get_address(array) for array in arrays[:4])
    start = arrays[4].data.ptr
    weights, dots, squares = (np.uint64(start + offset) for offset in (0, work.dots_offset, work.squares_offset))
    counts, geometry, block = (work.row_count, work.reference_count), arrays[0].shape[1:], (BLOCK_THREADS,)
    sizes = _pack(*counts, *geometry, work.pitch, work.weights_pitch)
    find_kernel("rbfrm_weights", work.weights_tile)(
        (work.weights_tile_count, work.part_count),
        block,
        (features, unit_patches, weights, dots, squares, *sizes, np.int32(work.part_steps)),
        stream=stream,
    )
    if work.part_count > 1:
        find_kernel("rbfrm_combine")(
            (-(-work.row_count * work.weights_pitch // BLOCK_THREADS),),
            block,
            (dots, squares, weights, *_pack(*counts, work.weights_pitch, work.part_count)),
            stream=stream,
        )
    find_kernel("rbfrm_rebuild", work.rebuild_tile)(
        (work.rebuild_tile_count,), block, (weights, patches, out, *sizes), stream=stream
    )


class RbfrmCuda:
    """See `ndp_rt.kernels.op.CudaForm`. It prepares the reference's patches as they are, "raw", and at length 1."""

    def __init__(self, shape: tuple[int, ...], reference_shape: tuple[int, ...], size: int, dtype: str) -> None:
        """Lay out for features of `shape` [n, c, h, w] and a reference [1, c, h', w'], K = size.

        Raises:
            InputError: K is neither 2 nor 4, or dtype is none of float32, float16 and bfloat16.
        """
        patches_shape = find_rbfrm_patches_shape(reference_shape, size)
        n, c, h, w = shape
        self._size, self._dtype = size, dtype
        self.prepared = {name: TensorSpec(name=name, shape=patches_shape, dtype=dtype) for name in ("raw", "unit")}
        self.scratch_bytes = count_rbfrm_scratch_bytes(n, c, h, w, patches_shape[0], size, dtype=dtype)

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        (reference,) = assets
        raw, unit = prepared["raw"], prepared["unit"]
        prepare_rbfrm(kernels, reference, raw, unit, self._size, dtype=self._dtype, stream=stream)

    def enqueue(
        self,
        kernels: KernelSet,
        reads: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        writes: Sequence[DeviceArray],
        scratch: DeviceArray | None,
        *,
        stream: Any,
    ) -> None:
        assert scratch is not None  # every call writes its weights there
        (features,), (out,) = reads, writes
        raw, unit = prepared["raw"], prepared["unit"]
        rbfrm(kernels, features, raw, unit, out, scratch, self._size, dtype=self._dtype, stream=stream)
