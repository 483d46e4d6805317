"""Assets on a GPU: what ops prepared of them, in fixed memory that graphs point to; others are copied into it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory, copy_and_wait
from ndp_rt.graphs.half_types import narrow
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import CudaForm, is_asset_part
from ndp_rt.program.program import AssetSpec, Program
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.assets import hash_asset
from ndp_rt.runtime.host_step import Assets
from ndp_rt.runtime.memory_layout import align

Part = tuple[str, str, str]  # an asset's tensor, and the type that it is held in


class AssetLayout:
    """The places of assets in one block: prepared twice, in use and for the next; then the tensors they are made of."""

    def __init__(self, program: Program, specs: Mapping[str, AssetSpec], forms: Mapping[int, CudaForm]) -> None:
        """Lay out.

        Args:
            program: whose ops read assets.
            specs: of the assets, by name.
            forms: of the program's ops, by number of the step; the same for every batch size.
        """
        self.forms = {number: form for number, form in forms.items() if form.prepared}
        self.prepared: dict[tuple[int, str], tuple[int, TensorSpec]] = {}
        self.parts: dict[int, list[Part]] = {}  # that each step reads
        self.tensors: dict[Part, tuple[int, TensorSpec]] = {}
        self.size_bytes = 0
        for number, form in self.forms.items():
            for name, spec in form.prepared.items():
                self.prepared[number, name] = self._place(spec)
        self.prepared_bytes = self.size_bytes
        self.size_bytes *= 2
        for number, form in self.forms.items():
            dtype = next(iter(form.prepared.values())).dtype
            names = [name.partition(".") for name in program.steps[number].reads if is_asset_part(name)]
            self.parts[number] = [(asset, tensor, dtype) for asset, _, tensor in names]
            for part in (one for one in self.parts[number] if one not in self.tensors):
                self.tensors[part] = self._place(replace(specs[part[0]].tensors[part[1]], dtype=dtype))

    def _place(self, spec: TensorSpec) -> tuple[int, TensorSpec]:
        offset, self.size_bytes = self.size_bytes, self.size_bytes + align(spec.size_bytes)
        return offset, spec


class PreparedAssets:
    """Assets as ops prepared them, at a place in memory of others."""

    def __init__(self, memory: DeviceMemory, layout: AssetLayout, offset_bytes: int) -> None:
        """Take the place."""
        self.pointer = memory.pointer + offset_bytes
        self.by_step: dict[int, dict[str, Any]] = {}
        for (number, name), (offset, spec) in layout.prepared.items():
            view = memory.view(spec.fixed_shape, spec.dtype, offset_bytes + offset)
            self.by_step.setdefault(number, {})[name] = view
        self.digests: dict[str, str] = {}


class DeviceAssets:
    """The assets in use, at addresses that never change; `prepare` makes others to copy into them.

    All memory is there from the start: to allocate or free some would make the whole GPU wait, frames on their way too.
    """

    def __init__(
        self, device: CudaDevice, kernels: KernelSet, layout: AssetLayout, stream: Any, staging: PinnedMemory
    ) -> None:
        """Allocate.

        Args:
            device: of everything here.
            kernels: of the ops.
            layout: of the program's assets.
            stream: the program's, which reads what is prepared.
            staging: what tensors go up through; nobody else uses it.
        """
        self._device, self._kernels, self._layout = device, kernels, layout
        self._stream, self._staging = stream, staging
        with translate_errors("making a stream"):
            self._side_stream = device.cupy.cuda.Stream(non_blocking=True)
            self._copied = device.cupy.cuda.Event(disable_timing=True)
        self._memory = DeviceMemory(device, layout.size_bytes, "the assets")
        self._tensors = {
            part: self._memory.view(spec.fixed_shape, spec.dtype, offset)
            for part, (offset, spec) in layout.tensors.items()
        }
        self._current, self._made = (
            PreparedAssets(self._memory, layout, offset) for offset in (0, layout.prepared_bytes)
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the assets in use."""
        return tuple(self._current.digests.values())

    def find(self, number: int) -> Mapping[str, Any]:
        """Return what a step's op prepared."""
        return self._current.by_step[number]

    def prepare(self, assets: Assets) -> PreparedAssets:
        """Prepare all assets that the program reads, on the device, and wait for it; they stay until the next call.

        Args:
            assets: float32 tensors on the host.

        Raises:
            DeviceError: the device fails.
        """
        self._device.activate()
        with translate_errors("preparing assets"):
            self._side_stream.wait_event(self._copied)  # the last ones are in place
            for (asset, tensor, dtype), target in self._tensors.items():
                values = narrow(assets[asset][tensor], dtype)
                assert values.nbytes == target.nbytes
                copy_and_wait(self._device, target.data.ptr, values, self._side_stream, self._staging, to_device=True)
            for number, form in self._layout.forms.items():
                parts = [self._tensors[part] for part in self._layout.parts[number]]
                form.prepare(self._kernels, parts, self._made.by_step[number], stream=self._side_stream)
            self._side_stream.synchronize()
        self._made.digests = {name: hash_asset(tensors) for name, tensors in assets.items()}
        return self._made

    def use(self, made: PreparedAssets) -> None:
        """Copy prepared assets into place, on the program's stream: frames enqueued before keep the old ones."""
        with translate_errors("swapping assets"):
            self._device.copy(
                "DeviceToDevice", self._current.pointer, made.pointer, self._layout.prepared_bytes, self._stream
            )
            self._copied.record(self._stream)
        self._current.digests = made.digests

    def close(self) -> None:
        """Free everything; the caller has waited for the program's stream."""
        self._memory.close()
