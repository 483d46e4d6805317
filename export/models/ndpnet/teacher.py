"""Finds and reads the teacher of a distillation: a finished run, or the weights of one that is in phase 2."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ndp_rt.errors import InputError, RunError
from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.training.checkpoint import load_network, load_tensors
from ndp_rt.export.training.loop import TrainState
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, open_run
from ndp_rt.program.manifest import InputContract

REMEDY = "Give the folder of a finished run, or the checkpoint.safetensors of one in phase 2."


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Where a teacher's weights lie, and how they were trained."""

    path: Path
    settings: NdpNetSettings
    steps_done: tuple[int, ...]  # of each phase, as far as its record says
    training_sha256: str | None  # of the images that it was trained on; None: not recorded beside its weights
    sha256: str  # of the file, and with it the teacher's identity

    def to_json(self) -> dict[str, Any]:
        """Return what run.json and a bundle's provenance say of it; folders by name alone."""
        return {
            "name": self.path.absolute().parent.name,
            "file": self.path.name,
            "sha256": self.sha256,
            "preset": self.settings.preset,
            "width": self.settings.width,
            "steps_done": list(self.steps_done),
            "training_sha256": self.training_sha256,
        }


def find_teacher(path: Path, contract: InputContract, output: Path) -> Teacher:
    """Return the teacher that `path` names.

    Args:
        path: a finished run's folder, or a safetensors file that `ndp-rt train` wrote, phase 2 begun.
        contract: of the run that is to be trained.
        output: that run's folder.

    Raises:
        RunError: no such run, one that is not trained or damaged, or the run itself.
        InputError: its input is of another size than this run's.
    """
    if not path.exists():
        raise RunError(f"--teacher {path} is not there. {REMEDY}")
    if (path if path.is_dir() else path.parent).resolve() == output.resolve():
        raise RunError(f"--teacher {path} is the run to be trained itself. Give another run, or another output folder.")
    try:
        teacher = _find_run(path) if path.is_dir() else _find_file(path)
    except RunError as error:
        raise RunError(f"--teacher {path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"--teacher {path}: its record is damaged ({error!s:.200}). {REMEDY}") from error
    its = teacher.settings.contract
    if (its.height_px, its.width_px) != (contract.height_px, contract.width_px):
        raise InputError(
            f"--teacher {path}: expected a network for {_describe(contract)}, got one for "
            f"{_describe(its)}. Give both the same --size, or another teacher."
        )
    return teacher


def load_teacher(teacher: Teacher, device: str) -> NDPNet:
    """Return the teacher's network on a device of PyTorch's, in eval mode.

    Draws no random numbers: a student begins with the same weights, with a teacher or without.

    Raises:
        RunError: damaged weights, those of another network, or such as are not finite.
    """
    settings = teacher.settings
    with torch.device("meta"):
        model = NDPNet(settings.width, settings.height_px, settings.width_px)
    try:
        load_network(teacher.path, model, remedy=REMEDY)
    except RunError as error:
        raise RunError(f"--teacher: {error}") from error
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _find_run(path: Path) -> Teacher:
    """Return the teacher of a run's folder."""
    _, document = open_run(path)
    if not document["finished"]:
        raise RunError(
            "it has not finished training. Go on with it (--resume), or give the checkpoint.safetensors of its phase 2."
        )
    InputContract.from_json(document["input"])
    return Teacher(
        path=path / WEIGHTS_FILE,
        settings=NdpNetSettings.from_json(document["settings"]),
        steps_done=tuple(document["steps_done"]),
        training_sha256=document["data"].get("training_sha256"),
        sha256=_hash_file(path / WEIGHTS_FILE),
    )


def _find_file(path: Path) -> Teacher:
    """Return the teacher of a checkpoint, or of the weights of a finished run."""
    _, header = load_tensors(path, remedy=REMEDY, is_wanted=lambda name: False)
    steps_done: tuple[int, ...] = ()
    if header.get("state") is not None:
        state = TrainState.from_json(header["state"])
        if state.phase == 1 or state.step == 0:
            raise RunError(f"it is a checkpoint of phase 1, whose maps are not trained yet. {REMEDY}")
        steps_done = (*state.steps_done, state.step)
    return Teacher(
        path=path,
        settings=NdpNetSettings.from_json(header["settings"]),
        steps_done=steps_done,
        training_sha256=_read_training_sha256(path.parent),
        sha256=_hash_file(path),
    )


def _read_training_sha256(folder: Path) -> str | None:
    """Return what the run in a folder says of its training images; None where none is described there."""
    try:
        _, document = open_run(folder)
    except RunError:
        return None
    sha256: str | None = document["data"].get("training_sha256")
    return sha256


def _hash_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}. {REMEDY}") from error


def _describe(contract: InputContract) -> str:
    return f"{contract.height_px} x {contract.width_px} px {contract.colour}"
