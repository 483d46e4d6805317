"""Which engines of a bundle are meant, the keys that name them in the cache, and what is known once they are built."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.bundle import Bundle
from ndp_rt.device import find_cpu
from ndp_rt.engines.cache import EngineEntry, EngineKey
from ndp_rt.engines.registry import find_backend, find_version
from ndp_rt.errors import InputError
from ndp_rt.specs import PLAN_STAGES


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """Which engines of a bundle are meant."""

    backend: str = "openvino"
    precision: str = "fp32"
    batches: tuple[int, ...] = (1,)
    plan: str = "fused"

    def __post_init__(self) -> None:
        backend = find_backend(self.backend)
        if self.plan not in PLAN_STAGES:
            raise InputError(f"plan is '{self.plan}'; one of {', '.join(PLAN_STAGES)} is taken.")
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) != len(self.batches):
            raise InputError(f"batches are {list(self.batches)}; different sizes from 1 are taken, at least one.")
        find_version(backend)
        if self.precision not in backend.precisions:
            raise InputError(
                f"precision is '{self.precision}'; backend {self.backend} takes {' or '.join(backend.precisions)} "
                "on the CPU. Choose another precision or backend (openvino takes fp32 or bf16)."
            )

    def make_command(self, bundle_path: Path) -> str:
        """Return the shell command that builds these engines."""
        batches = ",".join(map(str, self.batches))
        return (
            f"ndp-rt build-engine {shlex.quote(str(bundle_path))} --backend {self.backend} "
            f"--precision {self.precision} --batch {batches} --plan {self.plan}"
        )

    def make_keys(self, bundle: Bundle) -> list[EngineKey]:
        """Return the key of every engine, batch by batch in the plan's order of stages."""
        cpu, version = find_cpu(), find_version(find_backend(self.backend))
        return [
            EngineKey(
                bundle_fingerprint=bundle.fingerprint,
                stage=stage,
                backend=self.backend,
                backend_version=version,
                device="cpu",
                device_model=cpu.model_name,
                isa_flags=cpu.isa_flags,
                precision=self.precision,
                batch=batch,
            )
            for batch in self.batches
            for stage in PLAN_STAGES[self.plan]
        ]


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
        for entry in self.entries[: len(PLAN_STAGES[self.request.plan])]:
            for kind, counts in entry.precision_by_layer_type.items():
                for precision, count in counts.items():
                    of_kind = total.setdefault(kind, {})
                    of_kind[precision] = of_kind.get(precision, 0) + count
        return total
