"""From a photograph to a reference: rounded as a bundle stores it, so that one image gives one model everywhere."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from ndp_rt.bundle.open import REFERENCE_FILE, Bundle
from ndp_rt.bundle.reference import replace_reference_file

FloatArray = NDArray[np.float32]


def round_to_picture(prepared: FloatArray) -> NDArray[np.uint8]:
    """Round a preprocessed image to what reference.png can hold, in place, and return that picture.

    Args:
        prepared: float32 [1, 3, h, w], 0 to 1; overwritten with picture / 255.

    Returns:
        uint8 [h, w, 3], RGB.
    """
    picture: NDArray[np.uint8] = np.round(prepared[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    prepared[0] = picture.transpose(2, 0, 1) / np.float32(255)
    return picture


def make_reference_file(bundle: Bundle, features: Mapping[str, FloatArray]) -> bytes:
    """Return the bundle's reference.safetensors with other features, in the type that it keeps them in."""
    return replace_reference_file((bundle.path / REFERENCE_FILE).read_bytes(), features)


def read_features(reference: bytes) -> dict[str, FloatArray]:
    """Return f3, f4, f5 of a reference.safetensors as every plan reads them."""
    return {name: np.asarray(value, np.float32) for name, value in load(reference).items()}
