"""Measures what of a surface's structure is lost where photographs are resized to the network's input."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.read import read_image
from ndp_rt.program.manifest import InputContract

IMAGE_COUNT = 16  # that are looked at, evenly over all
NOTED_LOSS = 0.25  # of the variance
FAINTEST = 4.0 / 255.0  # standard deviation of a loss that camera noise alone makes
GROWTH = (1.5, 2.0, 3.0, 4.0)  # of the input's sides, where a larger one is chosen; more is for inspect_large
SHADING = 1.0 / 12.0  # of the shorter side: what is coarser is light, not structure


def measure_losses(image: FloatArray, contracts: Sequence[InputContract]) -> list[tuple[float, float]]:
    """Return what a resize to each of some inputs takes from an image's fine structure.

    Args:
        image: float32 [h, w], 0 to 1.
        contracts: the inputs.

    Returns:
        The share of the fine structure's variance, and the standard deviation of what is lost; 0 where nothing is.
    """
    height, width = image.shape
    lows = [(min(height, one.height_px), min(width, one.width_px)) for one in contracts]
    if all(low == (height, width) for low in lows):
        return [(0.0, 0.0)] * len(lows)
    fine = image - cv2.GaussianBlur(image, (0, 0), max(1.0, SHADING * min(height, width)))
    variance = max(float(fine.var()), 1e-12)
    found = []
    for low in lows:
        smaller = cv2.resize(image, low[::-1], interpolation=cv2.INTER_AREA)  # of equal sizes both are the image
        lost = image - cv2.resize(smaller, (width, height), interpolation=cv2.INTER_LINEAR)
        found.append((float(lost.var()) / variance, float(lost.std())))
    return found


def describe_loss(paths: Sequence[Path], contract: InputContract) -> str | None:
    """Return a sentence where the resize takes much of the images' structure, else None.

    Raises:
        ImageFileError: an image that cannot be read.
    """
    ((share, deviation),) = _measure_losses(paths, [contract])
    if not _is_noted(share, deviation):
        return None
    height, width = _find_native(paths)
    step = max(height / contract.height_px, width / contract.width_px)
    return (
        f"the resize from {height} x {width} to {contract.height_px} x {contract.width_px} px takes {share:.0%} of the "
        f"surface's fine structure: a defect of less than {2.0 * step:.0f} px may vanish. Where such defects matter, "
        f"give --size auto or a larger --size, or cut the photographs into pieces to train on (inspect_large cuts "
        f"sheets in the same way)."
    )


def choose_size(paths: Sequence[Path], contract: InputContract, step_px: int) -> tuple[int, int, str]:
    """Return the smallest input that keeps the images' structure: height and width in px, and a sentence.

    That is the contract's own, or one of GROWTH with the images' aspect. Where none keeps it, it is the largest.

    Args:
        paths: good images.
        contract: the network's input without a choice.
        step_px: of which height and width have to be multiples.

    Raises:
        ImageFileError: an image that cannot be read.
    """
    native = _find_native(paths)
    inputs = [contract, *_list_larger(contract, native, step_px)]
    losses = _measure_losses(paths, inputs)
    chosen = next((one for one, loss in zip(inputs, losses, strict=True) if not _is_noted(*loss)), inputs[-1])
    size = f"input of {chosen.height_px} x {chosen.width_px} px"
    if chosen == contract:
        return contract.height_px, contract.width_px, f"{size}: it keeps the surface's fine structure"
    times = chosen.height_px * chosen.width_px / (contract.height_px * contract.width_px)
    return (
        chosen.height_px,
        chosen.width_px,
        f"{size}: at {contract.height_px} x {contract.width_px} the resize from {native[0]} x {native[1]} would take "
        f"{losses[0][0]:.0%} of the surface's fine structure; an inspection takes about {times:.1f} times as long",
    )


def _list_larger(contract: InputContract, native: tuple[int, int], step_px: int) -> list[InputContract]:
    """Return inputs of the images' aspect, larger than the contract's, up to the images' own size rounded up."""
    side = math.sqrt(contract.height_px * contract.width_px / (native[0] * native[1]))  # of the contract's area
    found = []
    for growth in GROWTH:
        scale = min(1.0, growth * side)
        height, width = (step_px * math.ceil(scale * length / step_px) for length in native)
        found.append(replace(contract, height_px=height, width_px=width))
        if scale == 1.0:
            break
    return [one for one in found if one.height_px > contract.height_px or one.width_px > contract.width_px]


def _is_noted(share: float, deviation: float) -> bool:
    return bool(share >= NOTED_LOSS and deviation >= FAINTEST)


def _find_native(paths: Sequence[Path]) -> tuple[int, int]:
    """Return the height and width of the image in the middle."""
    height, width = read_image(paths[len(paths) // 2]).shape[:2]
    return height, width


def _measure_losses(paths: Sequence[Path], contracts: Sequence[InputContract]) -> list[tuple[float, float]]:
    """Return `measure_losses` of the inputs, medians over some of the images."""
    level = contracts[0].white_level_16bit
    found = []
    for index in np.unique(np.linspace(0, len(paths) - 1, min(IMAGE_COUNT, len(paths))).round().astype(int)):
        image = read_image(paths[index], white_level=level)
        grey = image.astype(np.float32) / np.float32(255 if image.dtype == np.uint8 else level)
        grey = grey if grey.ndim == 2 else grey.mean(axis=2)
        found.append(measure_losses(grey, contracts))
    return [(float(share), float(deviation)) for share, deviation in np.median(found, axis=0)]
