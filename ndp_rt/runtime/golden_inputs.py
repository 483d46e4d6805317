"""Images that golden vectors are made of, and images before and after preprocessing, the same at every call."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.images.preprocess import preprocess
from ndp_rt.program.manifest import InputContract

ByteImage = NDArray[np.uint8]  # [h, w, 3] at the network's size

# Sources for the preprocessing: name, shape and type. The contract shrinks, grows, and does one of each.
RAW_CASES: tuple[tuple[tuple[int, ...], str], ...] = (
    ((97, 131), "uint8"),
    ((23, 40, 3), "uint8"),
    ((150, 31, 3), "uint16"),
)
RAW_SEED = 20221119
RAW_SIDE_PX = 64  # what they become: the rule is the same for every size


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
