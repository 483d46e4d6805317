"""Extreme images that show whether a precision overflows: what is infinite or not a number never becomes an engine."""

from collections.abc import Callable, Mapping

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import EngineError

Run = Callable[[FloatArray], Mapping[str, FloatArray]]


def make_probe_images(golden: FloatArray) -> dict[str, FloatArray]:
    """Return images by name, [3, h, w] each: those of the golden vectors, and the extremes of what a camera may give.

    Args:
        golden: [k, 3, h, w], preprocessed.
    """
    _, c, h, w = golden.shape
    board = ((np.arange(h)[:, None] + np.arange(w)) % 2).astype(np.float32)
    extremes = {
        "all 0": np.zeros((c, h, w), np.float32),
        "all 1": np.ones((c, h, w), np.float32),
        "checkerboard": np.broadcast_to(board, (c, h, w)).copy(),
        "one white pixel": np.zeros((c, h, w), np.float32),
    }
    extremes["one white pixel"][:, h // 2, w // 2] = 1.0
    return {f"golden vector {index}": image for index, image in enumerate(golden)} | extremes


def probe_precision(run: Run, golden: FloatArray, batch: int, precision: str) -> int:
    """Run every probe image and check all that comes out; return how many images were run.

    Args:
        run: takes float32 [batch, 3, h, w] and returns tensors by name as float32 (`half_types.widen`), as many as the
            engines show: features and repaired features as well as reconstruction and maps, because an overflow may
            vanish again on the way (exp of minus infinity is 0).
        golden: [k, 3, h, w], preprocessed.
        batch: of the engines.
        precision: for the message.

    Raises:
        EngineError: a tensor holds an infinity or no number; the message names it and the image.
    """
    images = make_probe_images(golden)
    names, stack = list(images), np.stack(list(images.values()))
    for start in range(0, len(names), batch):
        rows = [(start + index) % len(names) for index in range(batch)]  # the last batch starts over
        for name, tensor in run(np.ascontiguousarray(stack[rows])).items():
            bad = ~np.isfinite(tensor).reshape(batch, -1).all(axis=1)
            if bad.any():
                image = names[rows[int(np.argmax(bad))]]
                raise EngineError(
                    f"in {precision}, '{name}' holds values that are infinite or no number for the image '{image}'. "
                    "The engine is not used. Build with --precision fp32, tf32 or bf16."
                )
    return len(names)
