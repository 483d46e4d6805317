"""Measures what of a surface's structure is lost where photographs are resized to the network's input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.read import read_image
from ndp_rt.program.manifest import InputContract

IMAGE_COUNT = 16  # that are looked at, evenly over all
NOTED_LOSS = 0.25  # of the variance
FAINTEST = 4.0 / 255.0  # standard deviation of a loss that camera noise alone makes
SHADING = 1.0 / 12.0  # of the shorter side: what is coarser is light, not structure


def measure_loss(image: FloatArray, contract: InputContract) -> tuple[float, float]:
    """Return what a resize to the input takes from an image's fine structure.

    Args:
        image: float32 [h, w], 0 to 1.
        contract: the network's input.

    Returns:
        The share of the fine structure's variance, and the standard deviation of what is lost; 0 where nothing is.
    """
    height, width = image.shape
    low = min(height, contract.height_px), min(width, contract.width_px)
    if low == (height, width):
        return 0.0, 0.0
    smaller = cv2.resize(image, low[::-1], interpolation=cv2.INTER_AREA)
    lost = image - cv2.resize(smaller, (width, height), interpolation=cv2.INTER_LINEAR)
    fine = image - cv2.GaussianBlur(image, (0, 0), max(1.0, SHADING * min(height, width)))
    return float(lost.var() / max(fine.var(), 1e-12)), float(lost.std())


def describe_loss(paths: Sequence[Path], contract: InputContract) -> str | None:
    """Return a sentence where the resize takes much of the images' structure, else None.

    Raises:
        ImageFileError: an image that cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(IMAGE_COUNT, len(paths))).round().astype(int))
    found, sizes = [], []
    for index in chosen:
        image = read_image(paths[index], white_level=contract.white_level_16bit)
        white = 255.0 if image.dtype == np.uint8 else float(contract.white_level_16bit)
        grey = image.astype(np.float32) / np.float32(white)
        found.append(measure_loss(grey if grey.ndim == 2 else grey.mean(axis=2), contract))
        sizes.append(image.shape[:2])
    share, deviation = np.median(found, axis=0)
    if share < NOTED_LOSS or deviation < FAINTEST:
        return None
    height, width = sizes[len(sizes) // 2]
    step = max(height / contract.height_px, width / contract.width_px)
    return (
        f"the resize from {height} x {width} to {contract.height_px} x {contract.width_px} px takes {share:.0%} of the "
        f"surface's fine structure: a defect of less than {2.0 * step:.0f} px may vanish. Where such defects matter, "
        f"cut the photographs into pieces to train on (inspect_large cuts sheets in the same way), or give a larger "
        f"--size."
    )
