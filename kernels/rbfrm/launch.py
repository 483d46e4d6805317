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
    check_scratch,
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
class CallLayout:
    """The layout of one call: sizes, tiles, parts and places in the scratch memory."""

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


def lay_out(shape: tuple[int, int, int, int], reference_count: int, size: int, dtype: str) -> CallLayout:
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
    return CallLayout(
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


def _pack(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(value) for value in values)


class RbfrmCuda:
    """See `ndp_rt.kernels.op.CudaForm`; it prepares patches as they are, "raw", and at length 1, "unit"."""

    def __init__(self, shape: tuple[int, ...], reference_shape: tuple[int, ...], size: int, dtype: str) -> None:
        """Lay out a call.

        Args:
            shape: [n, c, h, w] of the features; h and w multiples of K.
            reference_shape: [1, c, h', w'] of the reference's, which may have another number of patches.
            size: K, 2 or 4.
            dtype: float32, float16 or bfloat16 (held as uint16; from compute capability 8.0).

        Raises:
            InputError: a shape, K or dtype is another.
        """
        check_element_type("dtype", dtype)
        _check_sizes("features", shape, size)
        _check_sizes("reference", reference_shape, size)
        n, c, h, w = shape
        reference_count = (reference_shape[2] // size) * (reference_shape[3] // size)
        self.layout = lay_out((n, c, h, w), reference_count, size, dtype)
        self.scratch_bytes = self.layout.scratch_bytes
        patches_shape = (reference_count, self.layout.pitch)
        self.prepared = {name: TensorSpec(name=name, shape=patches_shape, dtype=dtype) for name in ("raw", "unit")}
        self._shape, self._reference_shape, self._size, self._dtype = shape, reference_shape, size, dtype
        self._patches_shape = patches_shape

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        (reference,) = assets
        check_array("reference", reference, self._dtype, self._reference_shape)
        raw, unit = self._check_patches(prepared)
        for name, array in (("raw", raw), ("unit", unit)):
            check_apart(name, array, "reference", reference)
        check_apart("unit", unit, "raw", raw)
        count, pitch = self._patches_shape
        addresses = tuple(get_address(array) for array in (reference, raw, unit))
        kernel = self._find_kernel(kernels, "rbfrm_prepare")
        kernel((count,), (PREPARE_THREADS,), addresses + _pack(*self._reference_shape[1:], pitch), stream=stream)

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
        (features,), (out,) = reads, writes
        assert scratch is not None  # every call writes its weights there
        row_bytes = self._size * features.dtype.itemsize  # a row of a patch is read and written at once
        check_array("features", features, self._dtype, self._shape, alignment_bytes=row_bytes)
        check_array("out", out, self._dtype, self._shape, alignment_bytes=row_bytes)
        raw, unit = self._check_patches(prepared)
        check_scratch(scratch, self.scratch_bytes, alignment_bytes=ALIGNMENT_BYTES)
        for name, array in (("features", features), ("out", out)):
            check_apart("scratch", scratch, name, array)
        check_apart("out", out, "raw", raw)
        self._launch(kernels, (features, raw, unit, out), scratch.data.ptr, stream)

    def _check_patches(self, prepared: Mapping[str, DeviceArray]) -> tuple[DeviceArray, DeviceArray]:
        for name in self.prepared:
            check_array(name, prepared[name], self._dtype, self._patches_shape, alignment_bytes=ALIGNMENT_BYTES)
        return prepared["raw"], prepared["unit"]

    def _find_kernel(self, kernels: KernelSet, entry: str, tile: int = SMALL_TILE) -> Kernel:
        return kernels.function(FILE, entry, _make_defines(self._dtype, self._size, tile))

    def _launch(self, kernels: KernelSet, arrays: tuple[DeviceArray, ...], start: int, stream: Any) -> None:
        layout, block = self.layout, (BLOCK_THREADS,)
        features, raw, unit, out = (get_address(array) for array in arrays)
        weights, dots, squares = (np.uint64(start + at) for at in (0, layout.dots_offset, layout.squares_offset))
        counts = (layout.row_count, layout.reference_count)
        sizes = _pack(*counts, *self._shape[1:], layout.pitch, layout.weights_pitch)
        self._find_kernel(kernels, "rbfrm_weights", layout.weights_tile)(
            (layout.weights_tile_count, layout.part_count),
            block,
            (features, unit, weights, dots, squares, *sizes, np.int32(layout.part_steps)),
            stream=stream,
        )
        if layout.part_count > 1:
            self._find_kernel(kernels, "rbfrm_combine")(
                (-(-layout.row_count * layout.weights_pitch // BLOCK_THREADS),),
                block,
                (dots, squares, weights, *_pack(*counts, layout.weights_pitch, layout.part_count)),
                stream=stream,
            )
        self._find_kernel(kernels, "rbfrm_rebuild", layout.rebuild_tile)(
            (layout.rebuild_tile_count,), block, (weights, raw, out, *sizes), stream=stream
        )
