"""nearest_neighbour on a GPU: the least squared distance of each tile of patches, then of all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import (
    ELEMENT_CODES,
    MAX_IMAGES,
    DeviceArray,
    check_apart,
    check_array,
    check_element_type,
    check_image_count,
    check_scratch,
    get_address,
)
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import Kernel, KernelSet
from ndp_rt.program.tensors import TensorSpec

FILE = "nearest_neighbour/nearest_neighbour.cu"
BLOCK_THREADS = 256
TILE = 64
REGISTERS = {
    "nearest_neighbour_prepare": 40,
    "nearest_neighbour_tiles": 80,  # three blocks of 256 threads on an SM
    "nearest_neighbour_least": 64,
}
VARIANTS = tuple(
    Variant(file=FILE, entry=entry, max_registers=max_registers, defines={"NDP_RT_ELEMENT": code})
    for entry, max_registers in REGISTERS.items()
    for code in ELEMENT_CODES.values()
)


class NearestNeighbourCuda:
    """See `ndp_rt.kernels.op.CudaForm`; it prepares the patches as [c, pitch]."""

    def __init__(self, shape: tuple[int, ...], patches_shape: tuple[int, ...], dtype: str) -> None:
        """Lay out a call.

        Args:
            shape: [n, c, h, w] of the features.
            patches_shape: [m, c].
            dtype: float32, float16 or bfloat16 (held as uint16).

        Raises:
            InputError: another dtype, or more patches than a grid has tiles.
        """
        check_element_type("dtype", dtype)
        check_image_count("features", shape[0])
        self._shape, self._patches_shape, self._dtype = shape, patches_shape, dtype
        self._tile_count = -(-patches_shape[0] // TILE)
        if self._tile_count > MAX_IMAGES:
            raise InputError(f"patches: expected at most {MAX_IMAGES * TILE}, got {patches_shape[0]}. Remember fewer.")
        self._pitch = self._tile_count * TILE
        n, c, h, w = shape
        self.scratch_bytes = 4 * self._tile_count * n * h * w
        self.prepared = {"patches": TensorSpec(name="patches", shape=(c, self._pitch), dtype=dtype)}

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        (memory,), patches = assets, prepared["patches"]
        m, c = self._patches_shape
        check_array("memory", memory, self._dtype, (m, c))
        check_array("patches", patches, self._dtype, (c, self._pitch))
        check_apart("patches", patches, "memory", memory)
        arguments = (get_address(memory), get_address(patches), *(np.int32(one) for one in (c, m, self._pitch)))
        kernel = self._find_kernel(kernels, "nearest_neighbour_prepare")
        kernel((-(-c * self._pitch // BLOCK_THREADS),), (BLOCK_THREADS,), arguments, stream=stream)

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
        (features,), (out,), patches = reads, writes, prepared["patches"]
        n, c, h, w = self._shape
        assert scratch is not None  # every call writes the tiles' distances there
        check_array("features", features, self._dtype, (n, c, h, w))
        check_array("distance", out, self._dtype, (n, 1, h, w))
        check_array("patches", patches, self._dtype, (c, self._pitch))
        check_scratch(scratch, self.scratch_bytes, alignment_bytes=4)
        for name, array in (("features", features), ("distance", out), ("patches", patches)):
            check_apart("scratch", scratch, name, array)
        read, remembered, least, written = (get_address(array) for array in (features, patches, scratch, out))
        sizes = tuple(np.int32(one) for one in (c, h * w, self._patches_shape[0], self._pitch))
        tiles = (-(-h * w // TILE), self._tile_count, n)
        block, count = (BLOCK_THREADS,), n * h * w
        kernel = self._find_kernel(kernels, "nearest_neighbour_tiles")
        kernel(tiles, block, (read, remembered, least, *sizes), stream=stream)
        self._find_kernel(kernels, "nearest_neighbour_least")(
            (-(-count // BLOCK_THREADS),),
            block,
            (least, written, np.int32(count), np.int32(self._tile_count)),
            stream=stream,
        )

    def _find_kernel(self, kernels: KernelSet, entry: str) -> Kernel:
        return kernels.function(FILE, entry, {"NDP_RT_ELEMENT": ELEMENT_CODES[self._dtype]})
