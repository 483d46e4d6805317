"""nearest_sample on a GPU: sums of absolute differences, then the difference from the sample with the least."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import (
    ELEMENT_CODES,
    HELD_AS,
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

FILE = "nearest_sample/nearest_sample.cu"
BLOCK_THREADS = 256
STEPS = 4  # of nearest_sample.cu
VECTOR_BYTES = 16


def find_width(length: int, dtype: str) -> int:
    """Return how many elements of an image of `length` a thread reads at once."""
    width = VECTOR_BYTES // np.dtype(HELD_AS[dtype]).itemsize
    return 1 if length % width else width


def _make_defines(dtype: str, width: int) -> dict[str, int]:
    return {"NDP_RT_ELEMENT": ELEMENT_CODES[dtype], "NDP_RT_WIDTH": width}


VARIANTS = tuple(
    Variant(file=FILE, entry=entry, max_registers=64, defines=_make_defines(dtype, find_width(length, dtype)))
    for entry in ("nearest_sample_prepare", "nearest_sample_sums", "nearest_sample_difference")
    for dtype in ELEMENT_CODES
    for length in (1, VECTOR_BYTES)
)


class NearestSampleCuda:
    """See `ndp_rt.kernels.op.CudaForm`; it prepares the samples as they are."""

    def __init__(self, shape: tuple[int, ...], samples_shape: tuple[int, ...], dtype: str) -> None:
        """Lay out a call.

        Args:
            shape: [n, c, h, w] of the features.
            samples_shape: [m, c, h, w].
            dtype: float32, float16 or bfloat16 (held as uint16).

        Raises:
            InputError: another dtype, or more samples than a grid has rows.
        """
        check_element_type("dtype", dtype)
        check_image_count("features", shape[0])
        if samples_shape[0] > MAX_IMAGES:
            raise InputError(f"samples: expected at most {MAX_IMAGES}, got {samples_shape[0]}. Remember fewer.")
        self._shape, self._samples_shape, self._dtype = shape, samples_shape, dtype
        length = prod(shape[1:])
        self._width = find_width(length, dtype)
        self._vector_count = length // self._width
        self._chunk_count = -(-self._vector_count // (BLOCK_THREADS * STEPS))
        self.scratch_bytes = 4 * shape[0] * samples_shape[0] * self._chunk_count
        self.prepared = {"samples": TensorSpec(name="samples", shape=samples_shape, dtype=dtype)}

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        (memory,), samples = assets, prepared["samples"]
        self._check("memory", memory, self._samples_shape)
        self._check("samples", samples, self._samples_shape)
        check_apart("samples", samples, "memory", memory)
        count = self._samples_shape[0] * self._vector_count
        arguments = (get_address(memory), get_address(samples), np.int32(count))
        kernel = self._find_kernel(kernels, "nearest_sample_prepare")
        kernel((-(-count // BLOCK_THREADS),), (BLOCK_THREADS,), arguments, stream=stream)

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
        (features,), (out,), samples = reads, writes, prepared["samples"]
        assert scratch is not None  # every call writes its sums there
        self._check("features", features, self._shape)
        self._check("difference", out, self._shape)
        self._check("samples", samples, self._samples_shape)
        check_scratch(scratch, self.scratch_bytes, alignment_bytes=4)
        for name, array in (("features", features), ("samples", samples), ("scratch", scratch)):
            check_apart("difference", out, name, array)
        check_apart("scratch", scratch, "features", features)
        n, m = self._shape[0], self._samples_shape[0]
        read, remembered, sums, written = (get_address(array) for array in (features, samples, scratch, out))
        length, block = np.int32(self._vector_count), (BLOCK_THREADS,)
        self._find_kernel(kernels, "nearest_sample_sums")(
            (self._chunk_count, m), block, (read, remembered, sums, np.int32(n), length), stream=stream
        )
        self._find_kernel(kernels, "nearest_sample_difference")(
            (self._chunk_count, n), block, (read, remembered, sums, written, length, np.int32(m)), stream=stream
        )

    def _check(self, name: str, array: DeviceArray, shape: tuple[int, ...]) -> None:
        alignment = self._width * np.dtype(HELD_AS[self._dtype]).itemsize
        check_array(name, array, self._dtype, shape, alignment_bytes=alignment)

    def _find_kernel(self, kernels: KernelSet, entry: str) -> Kernel:
        return kernels.function(FILE, entry, _make_defines(self._dtype, self._width))
