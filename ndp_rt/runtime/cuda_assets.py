"""Assets on a GPU: what ops prepared of them, in fixed memory that graphs point to; others are copied into it."""

from collections.abc import Mapping
from typing import Any

from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.devices.cuda.memory import DeviceMemory, copy_and_wait
from ndp_rt.graphs.half_types import narrow
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import CudaForm, is_asset_part
from ndp_rt.program.program import Program
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.assets import hash_asset
from ndp_rt.runtime.host_step import Assets
from ndp_rt.runtime.memory_layout import align


class PreparedLayout:
    """The places of prepared memory, for every step that reads assets, in one block."""

    def __init__(self, forms: Mapping[int, CudaForm]) -> None:
        """Lay out for forms by number of the step; the same for every batch size."""
        self.specs: dict[tuple[int, str], TensorSpec] = {
            (number, name): spec for number, form in forms.items() for name, spec in form.prepared.items()
        }
        self.offsets_bytes: dict[tuple[int, str], int] = {}
        self.size_bytes = 0
        for key, spec in self.specs.items():
            self.offsets_bytes[key] = self.size_bytes
            self.size_bytes += align(spec.size_bytes)


class PreparedAssets:
    """Assets as ops prepared them, in a block of its own."""

    def __init__(self, device: CudaDevice, layout: PreparedLayout) -> None:
        """Allocate."""
        self.memory = DeviceMemory(device, layout.size_bytes, "the prepared assets")
        self.by_step: dict[int, dict[str, Any]] = {}
        for (number, name), spec in layout.specs.items():
            view = self.memory.view(spec.fixed_shape, spec.dtype, layout.offsets_bytes[number, name])
            self.by_step.setdefault(number, {})[name] = view
        self.digests: dict[str, str] = {}

    def close(self) -> None:
        """Free it; twice is allowed."""
        self.by_step = {}
        self.memory.close()


class DeviceAssets:
    """The assets in use, at addresses that never change; `prepare` makes others to copy into it."""

    def __init__(
        self, device: CudaDevice, kernels: KernelSet, program: Program, forms: Mapping[int, CudaForm], stream: Any
    ) -> None:
        """Allocate.

        Args:
            device: of everything here.
            program: whose ops read assets.
            forms: of these ops, by number of the step.
            stream: the program's, which reads what is prepared.
        """
        self._device, self._kernels, self._stream = device, kernels, stream
        self._forms = {number: form for number, form in forms.items() if form.prepared}
        self._parts = {
            number: [name.partition(".") for name in program.steps[number].reads if is_asset_part(name)]
            for number in self._forms
        }
        self.layout = PreparedLayout(self._forms)
        self._current = PreparedAssets(device, self.layout)
        self._last: PreparedAssets | None = None  # the one that was copied last: the copy may still be on its way
        with translate_errors("making a stream"):
            self._side_stream = device.cupy.cuda.Stream(non_blocking=True)

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the assets in use."""
        return tuple(self._current.digests.values())

    def find(self, number: int) -> Mapping[str, Any]:
        """Return what a step's op prepared."""
        return self._current.by_step[number]

    def prepare(self, assets: Assets) -> PreparedAssets:
        """Prepare all assets that the program reads, on the device, and wait for it.

        Args:
            assets: float32 tensors on the host.

        Raises:
            DeviceError: memory runs out, or the device fails.
        """
        self._device.activate()
        made = PreparedAssets(self._device, self.layout)
        held: dict[tuple[str, str, str], tuple[Any, DeviceMemory]] = {}
        try:
            for number, form in self._forms.items():
                dtype = next(iter(form.prepared.values())).dtype
                parts = []
                for asset, _, tensor in self._parts[number]:
                    if (asset, tensor, dtype) not in held:
                        held[asset, tensor, dtype] = self._upload(assets[asset][tensor], dtype)
                    parts.append(held[asset, tensor, dtype][0])
                form.prepare(self._kernels, parts, made.by_step[number], stream=self._side_stream)
            with translate_errors("preparing assets"):
                self._side_stream.synchronize()
        except BaseException:
            made.close()
            raise
        finally:
            for _, block in held.values():
                block.close()
        made.digests = {name: hash_asset(tensors) for name, tensors in assets.items()}
        return made

    def use(self, made: PreparedAssets) -> None:
        """Copy prepared assets into place, on the program's stream: frames enqueued before keep the old ones."""
        source, target = made.memory, self._current.memory
        with translate_errors("swapping assets"):
            self._device.copy("DeviceToDevice", target.pointer, source.pointer, source.size_bytes, self._stream)
            if self._last is not None:
                self._stream.synchronize()  # its copy, before its memory goes
                self._last.close()
        self._last, self._current.digests = made, made.digests

    def close(self) -> None:
        """Free everything; the caller has waited for the program's stream."""
        for one in (self._current, self._last):
            if one is not None:
                one.close()

    def _upload(self, values: Any, dtype: str) -> tuple[Any, DeviceMemory]:
        """Return an asset's tensor on the device, as `dtype`, and the memory that it is in."""
        held = narrow(values, dtype)
        block = DeviceMemory(self._device, held.nbytes, "an asset's tensor")
        try:
            copy_and_wait(self._device, block.pointer, held, self._side_stream, to_device=True)
        except BaseException:
            block.close()
            raise
        return block.view(held.shape, dtype), block
