"""Which images a run trains on: finds the good ones, splits off the calibration slice, and takes their fingerprints.

DATA is MVTec AD's layout (`DATA/train/good`) or a flat folder of good images. The calibration slice is
`DATA/validation/good` where that folder exists (MVTec LOCO's name), otherwise a share of the good images drawn by
seed; it is never trained on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.paths import IMAGE_SUFFIXES

FEWEST_TRAINING_IMAGES = 2
FEW_HELD_OUT = 8  # a threshold from fewer images says next to nothing; at most a quarter of the images
HOLDOUT_STREAM = 0x401D  # keeps the split's random numbers apart from the batches'


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """The good images of a run; paths in sorted order."""

    root: Path
    layout: str  # "mvtec" or "flat"
    training: tuple[Path, ...]
    calibration: tuple[Path, ...]


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def split_data(root: Path, *, holdout: float, seed: int) -> DataSplit:
    """Find the good images under root and split them into training and calibration.

    Args:
        root: DATA.
        holdout: share of the good images that goes to calibration, 0 to below 1; unless 0, at least FEW_HELD_OUT
            images or a quarter of them.
            Not used where DATA has a folder validation/good.
        seed: decides the split, together with the sorted file names.

    Raises:
        DataError: no such folder, no good images in it, or too few to train on.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of good images, or one in MVTec AD's layout, got no folder.")
    good_folder = root / "train" / "good"
    layout = "mvtec" if good_folder.is_dir() else "flat"
    if layout == "flat" and (root / "train").is_dir():
        raise DataError(
            f"{root}: expected the good images in train/good, got a folder train without it. Put them there."
        )
    folder = good_folder if layout == "mvtec" else root
    good = list_images(folder)
    if not good:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(
            f"{folder}: expected images (files that end in {kinds}), got none. Put photographs of the good surface "
            "there, or give the folder that has them (MVTec AD's layout: DATA/train/good)."
        )
    validation_folder = root / "validation" / "good"
    if validation_folder.is_dir():
        training, calibration = good, list_images(validation_folder)
    else:
        fewest = max(1, min(FEW_HELD_OUT, len(good) // 4))
        count = min(len(good), max(fewest, round(holdout * len(good)))) if holdout > 0.0 else 0
        order = np.random.default_rng([seed, HOLDOUT_STREAM]).permutation(len(good))
        held_out = set(order[:count].tolist())
        training = [path for index, path in enumerate(good) if index not in held_out]
        calibration = [path for index, path in enumerate(good) if index in held_out]
    if len(training) < FEWEST_TRAINING_IMAGES:
        raise DataError(
            f"{folder}: expected at least {FEWEST_TRAINING_IMAGES} good images to train on, better some dozens, got "
            f"{len(training)}; {len(calibration)} are held out for calibration. Add photographs."
        )
    return DataSplit(root=root, layout=layout, training=tuple(training), calibration=tuple(calibration))


def fingerprint_files(root: Path, paths: Sequence[Path]) -> tuple[list[dict[str, object]], str]:
    """Return path (relative to root where below it), bytes and SHA-256 of each file, and one SHA-256 over all of that.

    Raises:
        ImageFileError: a file that cannot be read.
    """
    rows: list[dict[str, object]] = []
    total = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImageFileError(f"{path}: {error.strerror or error}. Make it readable, or take it away.") from error
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        digest = hashlib.sha256(content).hexdigest()
        rows.append({"path": name, "bytes": len(content), "sha256": digest})
        total.update(f"{name}\n{digest}\n".encode("utf-8", "surrogateescape"))
    return rows, total.hexdigest()
