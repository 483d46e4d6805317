"""A training run's folder: its files, and `run.json`, which holds what export and a later reader need.

run.json                family, settings, data, versions, commands, what was reached
data.json               every image and texture file with its SHA-256 and role
calibration.json        paths of the held-out good images, absolute
calibration_groups.json the group of each of them; images of one group are not independent
checkpoint.safetensors  the state to resume from
losses.csv, curve.png   the losses over the steps
model.safetensors       the final weights and what was made from images; there when the run has finished

A family may add files of its own, such as NDP-Net's reference.png.
"""

import json
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import DeviceError, ImageFileError, InputError, RunError, StorageError
from ndp_rt.export.models.family import Family
from ndp_rt.export.models.registry import FIRST_FAMILY, find_family
from ndp_rt.export.training.checkpoint import write_atomically
from ndp_rt.export.training.settings import TrainSettings
from ndp_rt.images.opencv import cv2
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.images.read import read_image
from ndp_rt.program.manifest import InputContract

PROGRAM = "ndp-rt"
CHECKPOINT_FILE = "checkpoint.safetensors"
WEIGHTS_FILE = "model.safetensors"
CALIBRATION_FILE = "calibration.json"
GROUPS_FILE = "calibration_groups.json"
FORMAT = "ndp-rt run"
FORMAT_VERSION = 1
# What run.json has from the start, and what is read of it.
ENTRIES = {
    "format_version": int,
    "preset": str,
    "input": dict,
    "settings": dict,
    "data": dict,
    "commands": list,
    "finished": bool,
}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
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


def open_run(path: Path) -> tuple[RunFolder, dict[str, Any]]:
    """Return a run's folder and its run.json.

    Raises:
        RunError: no run, a damaged one, or one of a newer format.
    """
    folder = RunFolder(path=path)
    document = folder.read_json("run.json")
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
    return folder, document


def describe_run(family: str, settings: TrainSettings, name: str, command: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return a new run.json."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "family": family,
        "preset": settings.preset,
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


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run."""

    folder: RunFolder
    document: dict[str, Any]  # run.json
    family: Family
    settings: TrainSettings
    contract: InputContract
    calibration_paths: tuple[Path, ...]  # good images that were not trained on
    calibration_groups: tuple[str, ...]  # of each of those

    def read_input(self, path: Path) -> npt.NDArray[np.float32]:
        """Return the held-out image at `path` as the network's input [1, 3, h, w].

        Raises:
            RunError: it cannot be read any more.
        """
        out = np.empty((1, 3, self.contract.height_px, self.contract.width_px), np.float32)
        try:
            image = read_image(path, white_level=self.contract.white_level_16bit)
            Preprocessor(self.contract)(image, out[0])
        except (ImageFileError, InputError) as error:
            raise RunError(
                f"a good image that the run held out for calibration cannot be used: {error} Put the data back where "
                "it was when the run was trained."
            ) from error
        return out


def load_run(path: Path) -> TrainedRun:
    """Read the run in the folder `path`.

    Raises:
        RunError: no run, an unfinished one, or one with a missing or damaged file.
        InputError: a run of a family that is not installed.
    """
    folder, document = open_run(path)
    if not document["finished"]:
        command = next(iter(document["commands"]), "ndp-rt train ...")
        raise RunError(f"{path} has not finished training. Go on with: {command.removesuffix(' --resume')} --resume")
    family = find_family(document.get("family", FIRST_FAMILY))
    try:
        paths = tuple(Path(name) for name in folder.read_json(CALIBRATION_FILE))
        return TrainedRun(
            folder=folder,
            document=document,
            family=family,
            settings=family.read_settings(document["settings"]),
            contract=InputContract.from_json(document["input"]),
            calibration_paths=paths,
            calibration_groups=_read_groups(folder, len(paths)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: the run is damaged ({error!s}). Train again.") from error


def _read_groups(folder: RunFolder, count: int) -> tuple[str, ...]:
    """Return the group of each held-out image; in a run of the time before groups each image is one.

    Raises:
        ValueError: the file has another number of them.
    """
    if not (folder / GROUPS_FILE).is_file():
        return tuple(map(str, range(count)))
    labels = tuple(map(str, folder.read_json(GROUPS_FILE)))
    if len(labels) != count:
        raise ValueError(f"{GROUPS_FILE}: expected {count} groups, got {len(labels)}")
    return labels


def command_line() -> str:
    """Return this process's command as a shell takes it."""
    return shlex.join([PROGRAM, *sys.argv[1:]])


def check_device(name: str) -> None:
    """Check that PyTorch computes on a device here.

    Raises:
        DeviceError: it knows no such device, or cannot use it.
    """
    expected = "expected cpu, or a CUDA device that PyTorch finds"
    remedy = "Leave --device out to train on the CPU."
    try:
        device = torch.device(name)
        is_usable = device.type in ("cpu", "cuda") and torch.zeros(1, device=device).item() == 0.0
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        what = str(error).splitlines()[0]
        raise DeviceError(f"--device: {expected}, got '{name}' ({what}). {remedy}") from error
    if not is_usable:
        raise DeviceError(f"--device: {expected}, got '{name}'. {remedy}")


def seed_torch(settings: TrainSettings) -> None:
    """Fix the initial weights and the number of threads, on which the last bits of every sum depend."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.thread_count)
    cv2.setNumThreads(1)
