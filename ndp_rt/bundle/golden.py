"""What golden vectors have to be: some, of the model's shapes, and finite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import BundleError
from ndp_rt.program.manifest import InputContract


def check_golden(tensors: Mapping[str, NDArray[Any]], contract: InputContract, path: Path) -> None:
    """Check the tensors of golden.safetensors, at `path`, which has image, map, score and an expectation for each raw.

    Raises:
        BundleError: they check nothing, have other shapes than the model's, or are not finite.
    """
    image, maps, score = (tensors[name] for name in ("image", "map", "score"))
    count = image.shape[0] if image.ndim else 0
    is_shaped = (
        count > 0
        and image.shape == (count, 3, contract.height_px, contract.width_px)
        and (maps.ndim == 4 and maps.shape[:2] == (count, 1) and maps.size > 0)
        and score.shape == (count,)
    )
    if not is_shaped or not all(np.isfinite(one).all() for one in (image, maps, score)):
        raise BundleError(
            f"{path}: expected 'image' [k, 3, {contract.height_px}, {contract.width_px}], 'map' [k, 1, h, w] and "
            f"'score' [k], k from 1, all finite, got {list(image.shape)}, {list(maps.shape)} and {list(score.shape)}. "
            "Export the bundle again."
        )
    if "raw_0" not in tensors:
        raise BundleError(f"{path}: expected images before preprocessing (raw_0), got none. Export the bundle again.")
    for name in tensors:
        if name.startswith("raw_") and f"{name}_expected" in tensors:
            raw, expected = tensors[name], tensors[f"{name}_expected"]
            is_image = raw.dtype in (np.uint8, np.uint16) and raw.ndim in (2, 3) and raw.size > 0
            if not is_image or expected.ndim != 3 or len(expected) != 3 or expected.size == 0:
                raise BundleError(
                    f"{path}: expected {name} uint8 or uint16 [h, w, 3] and its {name}_expected [3, h, w], got "
                    f"{raw.dtype} {list(raw.shape)} and {list(expected.shape)}. Export the bundle again."
                )
