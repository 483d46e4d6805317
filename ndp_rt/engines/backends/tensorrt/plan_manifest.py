"""The description beside a plan: its machine, its source and its tensors, so that a mismatch can be named."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ndp_rt.devices.machine import find_cuda_version, find_driver_version, find_gpu
from ndp_rt.engines.backend import find_distribution
from ndp_rt.engines.backends.tensorrt.library import DISTRIBUTIONS
from ndp_rt.engines.backends.tensorrt.options import HARDWARE_COMPATIBLE, VERSION_COMPATIBLE
from ndp_rt.errors import EngineError
from ndp_rt.program.tensors import TensorSpec

MANIFEST_FILE = "plan.json"
PLAN_FILE = "model.plan"
LOG_FILE = "build.log"
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine and the software that an engine depends on."""

    gpu_name: str
    compute_capability: str
    driver_version: str
    cuda_version: str  # the newest that the driver runs
    tensorrt_version: str
    tensorrt_package: str


def find_machine(lib: Any, device_index: int) -> Machine:
    """Describe this machine.

    Raises:
        DeviceError: there is no GPU of that number.
    """
    gpu = find_gpu(device_index)
    name, _ = find_distribution(DISTRIBUTIONS) or (UNKNOWN, "")
    return Machine(
        gpu_name=gpu.name,
        compute_capability=gpu.compute_capability or UNKNOWN,
        driver_version=find_driver_version() or UNKNOWN,
        cuda_version=find_cuda_version() or UNKNOWN,
        tensorrt_version=str(lib.__version__),
        tensorrt_package=name,
    )


@dataclass(frozen=True, kw_only=True)
class PlanManifest:
    """One plan: where it was built, from what, how, and what goes in and out."""

    machine: Machine
    precision: str
    batch: int
    traits: tuple[str, ...]  # TensorRtOptions.traits
    onnx_sha256: str
    onnx_path: str | None  # where the weights are, of a plan without them
    plan_sha256: str
    plan_bytes: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    products: Mapping[str, int]  # the network's layers that multiply, by type, before it was built

    def write(self, folder: Path) -> None:
        """Write it into the plan's folder."""
        document = asdict(self)
        (folder / MANIFEST_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "PlanManifest":
        """Read what `write` wrote.

        Raises:
            EngineError: it is missing or damaged.
        """
        try:
            document = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            given = {field.name: document[field.name] for field in fields(cls)}
            return cls(
                **{
                    **given,
                    "machine": Machine(**given["machine"]),
                    "traits": tuple(given["traits"]),
                    "inputs": _read_specs(given["inputs"]),
                    "outputs": _read_specs(given["outputs"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"{folder / MANIFEST_FILE}: cannot be read ({error}).") from error

    def find_differences(self, here: Machine) -> list[str]:
        """Say what this machine has in place of what the plan was built for; empty if it should load."""
        matters = {"gpu_name", "compute_capability", "driver_version", "tensorrt_version", "tensorrt_package"}
        if VERSION_COMPATIBLE in self.traits:
            matters -= {"tensorrt_version", "tensorrt_package", "driver_version"}
        if HARDWARE_COMPATIBLE in self.traits:
            matters -= {"gpu_name", "compute_capability", "driver_version"}
        made, found = asdict(self.machine), asdict(here)
        different = [name for name in made if name in matters and made[name] != found[name]]
        return [f"{name.replace('_', ' ')} {made[name]} (now {found[name]})" for name in different]


def _read_specs(document: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(name=name, shape=tuple(one["shape"]), dtype=one["dtype"]) for name, one in document.items()
    }
