"""The reference's patches on a device: fixed memory that graphs point to; new references are copied into it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ndp_rt.devices.cuda.buffers import ALIGNMENT_BYTES
from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.engines.engine import DTYPE_BYTES
from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.rbfrm import launch
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.gpu_steps import REPAIRED_LEVELS, list_repaired
from ndp_rt.runtime.plan import Features, hash_features


class PatchLayout:
    """Where raw and unit patches of every level and K lie in one block, and what RBFRM over them takes."""

    def __init__(self, shapes: Mapping[int, tuple[int, ...]], dtype: str) -> None:
        """Lay out for reference features [1, c, h, w] of `shapes`, by level."""
        self.shapes, self.dtype = dict(shapes), dtype
        self.sizes = {
            (n, k): launch.find_rbfrm_patches_shape(shapes[n], k) for n, k in list_repaired()
        }  # M, L (padded)
        self.offsets_bytes: dict[tuple[int, int, str], int] = {}
        self.size_bytes = 0
        for (level, k), (m, length) in self.sizes.items():
            for kind in ("raw", "unit"):
                self.offsets_bytes[level, k, kind] = self.size_bytes
                self.size_bytes += -(-m * length * DTYPE_BYTES[dtype] // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    @classmethod
    def of(cls, features: Mapping[str, TensorSpec]) -> "PatchLayout":
        """Lay out for a reference like features f3, f4, f5; their batch axis does not count."""
        shapes: dict[int, tuple[int, ...]] = {}
        for level in REPAIRED_LEVELS:
            c, h, w = (size or 0 for size in features[f"f{level}"].shape[1:])
            shapes[level] = (1, c, h, w)
        return cls(shapes, features["f3"].dtype)

    def count_scratch_bytes(self, level: int, k: int, shape: tuple[int, ...]) -> int:
        """Return the scratch memory that RBFRM needs for features of `shape` [n, c, h, w]."""
        n, c, h, w = shape
        return launch.count_rbfrm_scratch_bytes(n, c, h, w, self.sizes[level, k][0], k, dtype=self.dtype)


class PatchMemory:
    """Patches of one reference in a block of its own."""

    def __init__(self, device: CudaDevice, layout: PatchLayout) -> None:
        """Allocate."""
        self.memory = DeviceMemory(device, layout.size_bytes, "the reference's patches")
        self.patches = {
            (level, k, kind): self.memory.view(layout.sizes[level, k], layout.dtype, offset)
            for (level, k, kind), offset in layout.offsets_bytes.items()
        }
        self.digest = ""

    def close(self) -> None:
        """Free it; twice is allowed."""
        self.patches = {}
        self.memory.close()


class DeviceReference:
    """The reference in use, at addresses that never change; `prepare` makes others to copy into it."""

    def __init__(self, device: CudaDevice, kernels: KernelSet, features: Mapping[str, TensorSpec], stream: Any) -> None:
        """Allocate.

        Args:
            device: of everything here.
            kernels: of ours.
            features: the specs of f3, f4, f5; their batch axis does not count.
            stream: the plan's, which reads the patches.
        """
        self._device, self._kernels, self._stream = device, kernels, stream
        self.layout = PatchLayout.of(features)
        self._current = PatchMemory(device, self.layout)
        self._last: PatchMemory | None = None  # the one that was copied last: the copy may still be on its way
        with translate_errors("making a stream"):
            self._side_stream = device.cupy.cuda.Stream(non_blocking=True)

    @property
    def digest(self) -> str:
        """Names the reference in use."""
        return self._current.digest

    def enqueue(self, level: int, k: int, features: Any, out: Any, scratch: Any, stream: Any) -> None:
        """Put RBFRM of one level and K on a stream; all arrays on the device."""
        raw, unit = (self._current.patches[level, k, kind] for kind in ("raw", "unit"))
        launch.rbfrm(self._kernels, features, raw, unit, out, scratch, k, dtype=self.layout.dtype, stream=stream)

    def prepare(self, features: Features) -> PatchMemory:
        """Cut and normalise features f3, f4, f5 (float32 [1, c, h, w], host) on the device, and wait for it.

        Raises:
            InputError: one is missing, or its shape differs.
            DeviceError: memory runs out, or the device fails.
        """
        for level, shape in self.layout.shapes.items():
            name = f"f{level}"
            if name not in features or features[name].shape != shape:
                came = list(features[name].shape) if name in features else "missing"
                raise InputError(f"reference feature {name} is {came}; float32 {list(shape)} is taken.")
        self._device.activate()
        made = PatchMemory(self._device, self.layout)
        try:
            for level in REPAIRED_LEVELS:
                self._prepare_level(made, level, narrow(features[f"f{level}"], self.layout.dtype))
        except BaseException:
            made.close()
            raise
        made.digest = hash_features(features)
        return made

    def use(self, made: PatchMemory) -> None:
        """Copy prepared patches into place, on the plan's stream: frames enqueued before keep the old ones."""
        runtime = self._device.cupy.cuda.runtime
        with translate_errors("swapping the reference"):
            runtime.memcpyAsync(
                self._current.memory.pointer,
                made.memory.pointer,
                made.memory.size_bytes,
                runtime.memcpyDeviceToDevice,
                self._stream.ptr,
            )
            if self._last is not None:
                self._stream.synchronize()  # its copy, before its memory goes
                self._last.close()
        self._last, self._current.digest = made, made.digest

    def close(self) -> None:
        """Free everything; the caller has waited for the plan's stream."""
        for one in (self._current, self._last):
            if one is not None:
                one.close()

    def _prepare_level(self, made: PatchMemory, level: int, values: np.ndarray[Any, Any]) -> None:
        runtime, stream = self._device.cupy.cuda.runtime, self._side_stream
        pinned = PinnedMemory(self._device, values.nbytes)
        block = DeviceMemory(self._device, values.nbytes, "a reference's features")
        try:
            pinned.view(values.shape, values.dtype)[...] = values
            features = block.view(values.shape, self.layout.dtype)
            with translate_errors("preparing a reference"):
                runtime.memcpyAsync(
                    block.pointer, pinned.pointer, values.nbytes, runtime.memcpyHostToDevice, stream.ptr
                )
                for one_level, k in list_repaired():
                    if one_level == level:
                        raw, unit = (made.patches[level, k, kind] for kind in ("raw", "unit"))
                        launch.prepare_rbfrm(
                            self._kernels, features, raw, unit, k, dtype=self.layout.dtype, stream=stream
                        )
                stream.synchronize()
        finally:
            block.close()
            pinned.close()
