"""Finds and reads the teacher of a distillation: a finished run, or the weights of one that is in phase 2."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ndp_rt.engines.base import one_line
from ndp_rt.errors import InputError, RunError
from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.training.checkpoint import load_tensors
from ndp_rt.export.training.loop import TrainState
from ndp_rt.export.training.run_folder import WEIGHTS_FILE, open_run
from ndp_rt.program.manifest import InputContract

REMEDY = "Give the folder of a finished run, or the checkpoint.safetensors of one in phase 2."
NOT_THE_NETWORK = ("optimizer.", "distiller.")  # in a checkpoint
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Where a teacher's weights lie, and what network they are of."""

    path: Path
    preset: str
    width: int
    contract: InputContract
    steps_done: tuple[int, ...]  # of each phase, as far as its record says
    training_sha256: str | None  # of the images that it was trained on; None: not recorded beside its weights
    sha256: str  # of the file, and with it the teacher's identity

    def to_json(self) -> dict[str, Any]:
        """Return what run.json and a bundle's provenance say of it; folders by name alone."""
        return {
            "name": self.path.absolute().parent.name,
            "file": self.path.name,
            "sha256": self.sha256,
            "preset": self.preset,
            "width": self.width,
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
        InputError: it takes other images than this run.
    """
    if not path.exists():
        raise RunError(f"--teacher {path} is not there. {REMEDY}")
    if (path if path.is_dir() else path.parent).resolve() == output.resolve():
        raise RunError(f"--teacher {path} is the run to be trained itself. Give another run, or another output folder.")
    teacher = _find_run(path) if path.is_dir() else _find_file(path)
    if teacher.contract != contract:
        raise InputError(
            f"--teacher {path} takes {_say(teacher.contract)}; this run takes {_say(contract)}. Give both the same "
            "--size, or another teacher."
        )
    return teacher


def load_teacher(teacher: Teacher, device: str) -> NDPNet:
    """Return the teacher's network on a device of PyTorch's, in eval mode.

    Draws no random numbers: a student begins with the same weights, with a teacher or without.

    Raises:
        RunError: damaged weights, those of another network, or such as are not finite.
    """
    tensors, _ = load_tensors(teacher.path, remedy=REMEDY, is_wanted=lambda name: not name.startswith(NOT_THE_NETWORK))
    own = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        model = NDPNet(teacher.width, teacher.contract.height_px, teacher.contract.width_px)
    try:
        model.load_state_dict(own, assign=True)
    except RuntimeError as error:  # PyTorch's message names every tensor, on a line each
        raise RunError(
            f"--teacher: {teacher.path} does not hold the weights of width {teacher.width} that its record says "
            f"({one_line(error):.200}). {REMEDY}"
        ) from error
    bad = [name for name, t in own.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise RunError(f"--teacher: {teacher.path}: {', '.join(bad[:3])} hold values that are not finite. {REMEDY}")
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def _find_run(path: Path) -> Teacher:
    """Return the teacher of a run's folder."""
    try:
        _, document = open_run(path)
    except RunError as error:
        raise RunError(f"--teacher: {error}") from error
    if not document["finished"]:
        raise RunError(
            f"--teacher {path} has not finished training. Go on with it (--resume), or give the checkpoint.safetensors "
            "of its phase 2."
        )
    try:
        settings = NdpNetSettings.from_json(document["settings"])
        contract = InputContract.from_json(document["input"])
        training_sha256, steps_done = document["data"].get("training_sha256"), tuple(document["steps_done"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"--teacher {path}: run.json is damaged ({error!s:.200}). {REMEDY}") from error
    return _make_teacher(path / WEIGHTS_FILE, settings, contract, steps_done, training_sha256)


def _find_file(path: Path) -> Teacher:
    """Return the teacher of a checkpoint, or of the weights of a finished run."""
    try:
        _, header = load_tensors(path, remedy=REMEDY, is_wanted=lambda name: False)
    except RunError as error:
        raise RunError(f"--teacher: {error}") from error
    try:
        settings = NdpNetSettings.from_json(header["settings"])
        steps_done: tuple[int, ...] = ()
        is_trained = True
        if header.get("state") is not None:
            state = TrainState.from_json(header["state"])
            steps_done = (*state.steps_done, state.step)
            is_trained = state.phase == 2 and state.step > 0
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"--teacher {path}: its header is damaged ({error!s:.200}). {REMEDY}") from error
    if not is_trained:
        raise RunError(f"--teacher {path} is a checkpoint of phase 1, whose maps are not trained yet. {REMEDY}")
    return _make_teacher(path, settings, settings.contract, steps_done, _read_training_sha256(path.parent))


def _read_training_sha256(folder: Path) -> str | None:
    """Return what the run in a folder says of its training images; None where none is described there."""
    try:
        _, document = open_run(folder)
    except RunError:
        return None
    sha256: str | None = document["data"].get("training_sha256")
    return sha256


def _make_teacher(
    path: Path,
    settings: NdpNetSettings,
    contract: InputContract,
    steps_done: tuple[int, ...],
    training_sha256: str | None,
) -> Teacher:
    return Teacher(
        path=path,
        preset=settings.preset,
        width=settings.width,
        contract=contract,
        steps_done=steps_done,
        training_sha256=training_sha256,
        sha256=_hash_file(path),
    )


def _hash_file(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                total.update(block)
    except OSError as error:
        raise RunError(f"--teacher: {path} cannot be read: {error.strerror or error}. {REMEDY}") from error
    return total.hexdigest()


def _say(contract: InputContract) -> str:
    return f"{contract.height_px} x {contract.width_px} px {contract.colour}"
