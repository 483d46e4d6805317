"""A training run's folder: its files, and `run.json`, which holds what export and a later reader need.

run.json                settings, data, versions, commands, what was reached
data.json               every image and texture file with its SHA-256 and role
calibration.json        paths of the held-out good images, absolute
reference.png           the reference image at the network's size
checkpoint.safetensors  the state to resume from
losses.csv, curve.png   the losses over the steps
model.safetensors       the final weights, reference features included; there when the run has finished
"""

import json
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import DeviceError, RunError, StorageError
from ndp_rt.export.checkpoint import write_atomically
from ndp_rt.export.settings import TrainSettings

PROGRAM = "ndp-rt"
CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT = "ndp-rt run"
FORMAT_VERSION = 1
# What run.json has from the start, and what is read of it.
ENTRIES = {
    "format_version": int,
    "preset": str,
    "width": int,
    "input": dict,
    "settings": dict,
    "data": dict,
    "commands": list,
    "finished": bool,
}


@dataclass(frozen=True, kw_only=True)
class RunDir:
    """Paths of a run's files, and its JSON files' reading and writing."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def has_checkpoint(self) -> bool:
        """Tell whether there is a state to resume from."""
        return (self.path / CHECKPOINT_FILE).is_file()

    def create(self) -> None:
        """Make the folder.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be made: {error.strerror or error}. Give another folder."
            ) from error

    def write_json(self, name: str, document: Any) -> None:
        """Write one of the JSON files, atomically."""
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        # A path that is no UTF-8 holds lone surrogates, which this writes as the escapes that JSON has for them.
        write_atomically(self.path / name, text.encode("utf-8", "backslashreplace"))

    def read_json(self, name: str) -> Any:
        """Read one of the JSON files.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path / name} cannot be read: {error}. Give the folder that ndp-rt train wrote."
            ) from error


def open_run(path: Path) -> tuple[RunDir, dict[str, Any]]:
    """Return a run's folder and its run.json.

    Raises:
        RunError: no run, a damaged one, or one of a newer format.
    """
    run_dir = RunDir(path=path)
    document = run_dir.read_json("run.json")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RunError(f"{path / 'run.json'} is no run's description. Give the folder that ndp-rt train wrote.")
    damaged = [name for name, kind in ENTRIES.items() if not isinstance(document.get(name), kind)]
    if damaged:
        raise RunError(
            f"{path / 'run.json'} is damaged: {', '.join(damaged)} is missing or no longer itself. Train again."
        )
    if document["format_version"] > FORMAT_VERSION:
        raise RunError(
            f"{path} is a run of format {document['format_version']}; this version of ndp-rt reads up to "
            f"{FORMAT_VERSION}. Update ndp-rt."
        )
    return run_dir, document


def describe_run(settings: TrainSettings, name: str, command: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return a new run.json."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "preset": settings.preset,
        "width": settings.width,
        "input": settings.contract.to_json(),
        "seed": settings.seed,
        "settings": settings.to_json(),
        **data,
        "commands": [command],
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("ndp-rt", "torch", "numpy", "opencv-python-headless")},
        },
        "machine": {"system": platform.platform(), "processor": find_cpu().model_name},
        "finished": False,
    }


def command_line() -> str:
    """Return this process's command as a shell takes it."""
    return shlex.join([PROGRAM, *sys.argv[1:]])


def write_reference(run_dir: RunDir, image: npt.NDArray[np.float32]) -> None:
    """Write the reference image [h, w, 1 or 3], float32, 0 to 1, as reference.png, 8 bits RGB."""
    pixels = np.rint(np.broadcast_to(image, (*image.shape[:2], 3)) * 255.0).astype(np.uint8)
    _, content = cv2.imencode(".png", pixels[:, :, ::-1])
    write_atomically(run_dir / "reference.png", content.tobytes())


def check_device(name: str) -> None:
    """Check that PyTorch computes on a device here.

    Raises:
        DeviceError: it knows no such device, or cannot use it.
    """
    taken = "cpu, or a CUDA device that PyTorch finds, is taken. Leave --device out to train on the CPU"
    try:
        device = torch.device(name)
        is_usable = device.type in ("cpu", "cuda") and torch.zeros(1, device=device).item() == 0.0
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        raise DeviceError(f"--device is '{name}' ({str(error).splitlines()[0]}); {taken}.") from error
    if not is_usable:
        raise DeviceError(f"--device is '{name}'; {taken}.")


def seed_torch(settings: TrainSettings) -> None:
    """Fix the initial weights and the number of threads, on which the last bits of every sum depend."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.thread_count)
    cv2.setNumThreads(1)
