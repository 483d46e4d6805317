"""Golden vectors: what every engine of a bundle has to reproduce, and what every preprocessing has to.

Maps come from PyTorch. `image` is stored as uint8 (value / 255: exact, since these are pictures), `map` as float32 or,
in a bundle with half-precision weights, as uint16 (value / 65535: off by 8e-6 at most; an engine may be off by 1e-4).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.score import score_map
from ndp_rt.export.models.family import ExportedModel
from ndp_rt.kernels.smooth.host import smooth
from ndp_rt.program.manifest import InputContract
from ndp_rt.program.program import DecisionRules
from ndp_rt.runtime.golden_inputs import ByteImage, make_noise, make_preprocessing_vectors, paint_mark, to_input

__all__ = ["make_golden", "make_noise", "paint_mark", "run_network", "score_maps", "to_input"]

MAP_STEPS = 65535


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
