"""Golden vectors: what every engine of a bundle has to reproduce, and what every preprocessing has to.

Maps come from PyTorch. `image` is stored as uint8 (value / 255: exact, since these are pictures), `map` as float32 or,
in a bundle with half-precision weights, as uint16 (value / 65535: off by 8e-6 at most; an engine may be off by 1e-4).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.score import score_map
from ndp_rt.export.models.family import ExportedModel
from ndp_rt.images.preprocess import preprocess
from ndp_rt.kernels.smooth.host import smooth
from ndp_rt.program.manifest import InputContract
from ndp_rt.program.program import DecisionRules

ByteImage = NDArray[np.uint8]  # [h, w, 3] at the network's size

# Sources for the preprocessing: name, shape and type. The contract shrinks, grows, and does one of each.
RAW_CASES: tuple[tuple[tuple[int, ...], str], ...] = (
    ((97, 131), "uint8"),
    ((23, 40, 3), "uint8"),
    ((150, 31, 3), "uint16"),
)
RAW_SEED = 20221119
RAW_SIDE_PX = 64  # what they become: the rule is the same for every size
MAP_STEPS = 65535


def paint_mark(image: ByteImage) -> ByteImage:
    """Return the image with an artificial defect that any model should see: an inverted disc and a bright scratch."""
    painted: ByteImage = image.copy()
    h, w = image.shape[:2]
    rows, columns = np.mgrid[0:h, 0:w]
    disc = (rows - 0.3 * h) ** 2 + (columns - 0.6 * w) ** 2 < (0.06 * min(h, w)) ** 2
    painted[disc] = 255 - painted[disc]
    scratch = (np.abs((rows - 0.7 * h) - 0.4 * (columns - 0.3 * w)) < 1.5) & (np.abs(columns - 0.3 * w) < 0.15 * w)
    painted[scratch] = 255
    return painted


def make_noise(height: int, width: int) -> ByteImage:
    """Return an image of independent random bytes, the same every time."""
    noise: ByteImage = np.random.default_rng(RAW_SEED).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return noise


def to_input(image: ByteImage) -> FloatArray:
    """Return an RGB picture of the network's size as its input [1, 3, h, w], as preprocessing makes it."""
    scaled = np.divide(image.transpose(2, 0, 1)[None], np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(scaled)


def run_network(network: nn.Module, image: FloatArray) -> FloatArray:
    """Return PyTorch's map [n, 1, h, w] of an input [n, 3, h, w]."""
    with torch.no_grad():
        image_map: FloatArray = network(torch.from_numpy(image))[0].numpy()
    return image_map


def score_maps(maps: FloatArray, rules: DecisionRules) -> FloatArray:
    """Return the score [n] of maps [n, 1, h, w] by a bundle's rules."""
    smoothed = np.ascontiguousarray(maps)
    if rules.smooth != "none":
        smoothed = np.empty_like(maps)
        smooth(
            np.ascontiguousarray(maps), smoothed, np.empty(maps.shape[-2:], np.float32), size_px=rules.smooth_size_px
        )
    return np.array([score_map(one, rules) for one in smoothed[:, 0]], np.float32)


def make_golden(
    model: ExportedModel, images: Sequence[ByteImage], contract: InputContract, *, is_small: bool
) -> dict[str, NDArray[Any]]:
    """Return the tensors of golden.safetensors.

    Args:
        model: has the PyTorch networks, in eval mode.
        images: RGB at the network's size; the first is the one that loading an engine checks.
        contract: the bundle's.
        is_small: store maps as uint16; they are then of the network with the rounded weights that the bundle stores.
    """
    network = model.stored if is_small else model.trained
    maps = np.concatenate([run_network(network, to_input(image)) for image in images])  # [k, 1, h, w]
    scores = score_maps(maps, model.decision)
    if is_small:
        maps = np.rint(maps * MAP_STEPS).astype(np.uint16)
    pictures = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))  # uint8 [k, 3, h, w]
    return {"image": pictures, "map": maps, "score": scores, **make_preprocessing_vectors(contract)}


def make_preprocessing_vectors(contract: InputContract) -> dict[str, NDArray[Any]]:
    """Return raw_i and raw_i_expected: images before and after preprocessing by `contract`, but to the smallest size.

    The rule is the same for every size, and 64 x 64 floats keep the file small.
    """
    rng = np.random.default_rng(RAW_SEED)
    contract = dataclasses.replace(contract, height_px=RAW_SIDE_PX, width_px=RAW_SIDE_PX)
    vectors: dict[str, NDArray[Any]] = {}
    for index, (shape, dtype) in enumerate(RAW_CASES):
        raw = rng.integers(0, np.iinfo(np.dtype(dtype)).max, shape, endpoint=True).astype(dtype)
        expected = np.empty((3, RAW_SIDE_PX, RAW_SIDE_PX), np.float32)
        preprocess(raw, contract, expected)
        vectors |= {f"raw_{index}": raw, f"raw_{index}_expected": expected}
    return vectors
