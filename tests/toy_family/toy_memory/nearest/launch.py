"""nearest_patch on a GPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.kernels.checks import ELEMENT_CODES, DeviceArray, check_array, check_element_type, get_address
from ndp_rt.kernels.load import KernelSet
from ndp_rt.program.tensors import TensorSpec

FILE = str(Path(__file__).with_name("nearest.cu"))
THREADS = 128


class NearestCuda:
    """See `ndp_rt.kernels.op.CudaForm`."""

    scratch_bytes = 0

    def __init__(self, shape: tuple[int, ...], patches_shape: tuple[int, ...], dtype: str) -> None:
        check_element_type("dtype", dtype)
        self._shape, self._patches_shape, self._dtype = shape, patches_shape, dtype
        self._defines = {"NDP_RT_ELEMENT": ELEMENT_CODES[dtype]}
        self.prepared = {"patches": TensorSpec(name="patches", shape=patches_shape, dtype=dtype)}

    def prepare(
        self,
        kernels: KernelSet,
        assets: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        *,
        stream: Any,
    ) -> None:
        for array in (assets[0], prepared["patches"]):
            check_array("patches", array, self._dtype, self._patches_shape)
        count = self._patches_shape[0] * self._patches_shape[1]
        kernel = kernels.function(FILE, "nearest_prepare", self._defines)
        addresses = (get_address(assets[0]), get_address(prepared["patches"]))
        kernel((-(-count // THREADS),), (THREADS,), (*addresses, np.int32(count)), stream=stream)

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
        n, c, h, w = self._shape
        check_array("features", reads[0], self._dtype, (n, c, h, w))
        check_array("distance", writes[0], self._dtype, (n, 1, h, w))
        addresses = tuple(get_address(array) for array in (reads[0], prepared["patches"], writes[0]))
        sizes = tuple(np.int32(size) for size in (c, h * w, self._patches_shape[0]))
        kernel = kernels.function(FILE, "nearest", self._defines)
        kernel((-(-h * w // THREADS), n), (THREADS,), addresses + sizes, stream=stream)
