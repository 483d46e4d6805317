"""Reads a finished training run for export: the model, its reference image and the held-out good images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ndp_rt.engines.base import one_line
from ndp_rt.errors import ImageFileError, InputError, RunError
from ndp_rt.export.checkpoint import load_tensors
from ndp_rt.export.models.ndpnet import NDPNet
from ndp_rt.export.run_dir import RunDir, open_run
from ndp_rt.images.preprocess import Preprocessor, read_image
from ndp_rt.program.manifest import InputContract


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run."""

    run_dir: RunDir
    document: dict[str, Any]  # run.json
    model: NDPNet  # in eval mode, reference features included
    contract: InputContract
    reference_image: NDArray[np.uint8]  # RGB [h, w, 3] at the network's size
    calibration_paths: tuple[Path, ...]  # good images that were not trained on


def load_run(path: Path) -> TrainedRun:
    """Read the run in the folder `path`.

    Raises:
        RunError: no run, an unfinished one, or one with a missing, damaged or foreign file.
    """
    run_dir, document = open_run(path)
    if not document.get("finished"):
        command = next(iter(document.get("commands", [])), "ndp-rt train ...")
        raise RunError(f"{path} has not finished training. Go on with: {command.removesuffix(' --resume')} --resume")
    try:
        contract = InputContract.from_json(document["input"])
        width = int(document["width"])
        reference_image = read_image(path / "reference.png")
        calibration_paths = tuple(Path(name) for name in run_dir.read_json("calibration.json"))
    except (KeyError, TypeError, ValueError, ImageFileError) as error:
        raise RunError(f"{path}: the run is damaged ({error!s}). Train again.") from error
    size = (contract.height_px, contract.width_px, 3)
    if reference_image.dtype != np.uint8 or reference_image.shape != size:
        came = f"{reference_image.dtype} {list(reference_image.shape)}"
        raise RunError(f"{path / 'reference.png'} is {came}; the network takes uint8 {list(size)}. Train again.")
    return TrainedRun(
        run_dir=run_dir,
        document=document,
        model=load_model(path / "model.safetensors", width, contract),
        contract=contract,
        reference_image=reference_image,
        calibration_paths=calibration_paths,
    )


def load_model(path: Path, width: int, contract: InputContract) -> NDPNet:
    """Return the network with the weights in `path`, in eval mode.

    Raises:
        RunError: missing or damaged weights, those of another network, or such as are not finite.
    """
    try:
        tensors, _ = load_tensors(path)
        model = NDPNet(width, contract.height_px, contract.width_px)
        model.load_state_dict(tensors)
    except RuntimeError as error:  # RunError is one; PyTorch's names every tensor, on a line each
        raise RunError(f"{path} does not hold this run's weights ({one_line(error):.200}). Train again.") from error
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise RunError(
            f"{path}: {', '.join(bad[:3])} hold values that are not finite. Train again with a lower --learning-rate."
        )
    return model.eval()


def read_inputs(run: TrainedRun, path: Path) -> NDArray[np.float32]:
    """Return the held-out image at `path` as the network's input [1, 3, h, w].

    Raises:
        RunError: it cannot be read any more.
    """
    out = np.empty((1, 3, run.contract.height_px, run.contract.width_px), np.float32)
    try:
        Preprocessor(run.contract)(read_image(path), out[0])
    except (ImageFileError, InputError) as error:
        raise RunError(
            f"a good image that the run held out for calibration cannot be used: {error} Put the data back where it "
            "was when the run was trained."
        ) from error
    return out
