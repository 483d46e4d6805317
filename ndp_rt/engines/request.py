"""Which engines of a bundle are meant, the keys that name them in the cache, and what is known once they are built."""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle
from ndp_rt.devices.machine import BF16_FLAGS, find_cpu, find_driver_version, find_gpu
from ndp_rt.engines.base import BuildOptions
from ndp_rt.engines.cache import EngineEntry, EngineKey
from ndp_rt.engines.registry import DEVICE_BACKENDS, find_any_backend, find_plan_stages, find_version
from ndp_rt.errors import InputError
from ndp_rt.program.manifest import INT8_PRECISIONS

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """Which engines of a bundle are meant.

    `build` is for a GPU alone; None: built with the defaults, and found whatever they were built with.
    """

    backend: str = "openvino"
    precision: str = "fp32"
    batches: tuple[int, ...] = (1,)
    plan: str = "fused"
    build: BuildOptions | None = None
    device_index: int = 0

    def __post_init__(self) -> None:
        backend, plans = find_any_backend(self.backend), find_plan_stages(self.backend)
        if self.plan not in plans:
            raise InputError(f"plan is '{self.plan}'; one of {', '.join(plans)} is taken.")
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) != len(self.batches):
            raise InputError(f"batches are {list(self.batches)}; different sizes from 1 are taken, at least one.")
        if self.build is not None and not self.is_for_device:
            raise InputError(
                f"build options are given for backend {self.backend}; backends for a GPU take them: "
                f"{', '.join(DEVICE_BACKENDS)}."
            )
        find_version(backend)
        if self.precision not in backend.precisions:
            side = "a GPU" if self.is_for_device else "the CPU"
            raise InputError(
                f"precision is '{self.precision}'; backend {self.backend} takes {' or '.join(backend.precisions)} "
                f"on {side}. Choose another precision or backend (openvino takes fp32, bf16, int8 or mixed)."
            )
        if self.precision == "mixed" and not find_cpu().has_bf16:
            raise InputError(
                f"precision is 'mixed', int8 and bf16, and this processor, {find_cpu().model_name}, has none of "
                f"{', '.join(BF16_FLAGS)}. Take int8 or fp32."
            )
        if self.precision in INT8_PRECISIONS and not self.is_for_device and self.plan != "fused":
            raise InputError(
                f"plan is '{self.plan}' with precision {self.precision}; on the CPU int8 layers are chosen for, and "
                "checked in, plan 'fused'. Take that plan, or fp32 or bf16."
            )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EngineRequest":
        """Read what `dataclasses.asdict` and JSON made of a request."""
        build = document["build"]
        return cls(
            **{
                **document,
                "batches": tuple(document["batches"]),
                "build": None if build is None else BuildOptions(**build),
            }
        )

    @property
    def is_for_device(self) -> bool:
        """True if the engines run on a GPU."""
        return self.backend in DEVICE_BACKENDS

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the plan, in its order."""
        return find_plan_stages(self.backend)[self.plan]

    def make_command(self, bundle_path: Path) -> str:
        """Return the shell command that builds these engines."""
        batches = ",".join(map(str, self.batches))
        words = [
            *("ndp-rt", "build-engine", str(bundle_path), "--backend", self.backend),
            *("--precision", self.precision, "--batch", batches, "--plan", self.plan),
        ]
        if self.device_index:
            words += ["--device", f"cuda:{self.device_index}"]
        if self.build is not None:
            words += self.build.to_words()
        return shlex.join(words)

    def make_keys(self, bundle: Bundle) -> list[EngineKey]:
        """Return the key of every engine, batch by batch in the plan's order of stages.

        Raises:
            DeviceError: the engines are for a GPU, and there is none.
        """
        device = self._describe_gpu() if self.is_for_device else self._describe_cpu()
        return [
            EngineKey(
                bundle_fingerprint=bundle.engine_fingerprint(self.precision),
                stage=stage,
                backend=self.backend,
                backend_version=find_version(find_any_backend(self.backend)),
                precision=self.precision,
                batch=batch,
                **device,
            )
            for batch in self.batches
            for stage in self.stages
        ]

    def _describe_cpu(self) -> dict[str, Any]:
        cpu = find_cpu()
        return {"device": "cpu", "device_model": cpu.model_name, "isa_flags": cpu.isa_flags}

    def _describe_gpu(self) -> dict[str, Any]:
        gpu = find_gpu(self.device_index)
        return {
            "device": "cuda",
            "device_model": gpu.name,
            "compute_capability": gpu.compute_capability or UNKNOWN,
            "driver_version": find_driver_version() or UNKNOWN,
            "build_options": (self.build or BuildOptions()).traits,
        }


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """Built engines: where they lie and what is known of them."""

    request: EngineRequest
    entries: tuple[EngineEntry, ...]  # batch by batch in the plan's order of stages
    was_cached: bool
    seconds: float  # what it took to find or build them

    @property
    def engine_hash(self) -> str:
        """One SHA-256 (hex) for all of them."""
        return hashlib.sha256("".join(entry.key.sha256 for entry in self.entries).encode()).hexdigest()

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return the layers by type and precision, over all engines of the first batch size."""
        total: dict[str, dict[str, int]] = {}
        for entry in self.entries[: len(self.request.stages)]:
            for kind, counts in entry.precision_by_layer_type.items():
                for precision, count in counts.items():
                    of_kind = total.setdefault(kind, {})
                    of_kind[precision] = of_kind.get(precision, 0) + count
        return total
