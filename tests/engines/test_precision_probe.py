"""What overflows for some image is refused, and the message says where."""

from collections.abc import Mapping

import numpy as np
import pytest

from ndp_rt.engines.precision_probe import make_probe_images, probe_precision
from ndp_rt.errors import EngineError

GOLDEN = np.full((2, 3, 4, 6), 0.25, np.float32)


def test_probes_are_golden_vectors_and_extremes() -> None:
    images = make_probe_images(GOLDEN)
    assert all(image.shape == (3, 4, 6) and image.dtype == np.float32 for image in images.values())
    assert {name: (image.min(), image.max(), image.mean()) for name, image in images.items()} == {
        "golden vector 0": (0.25, 0.25, 0.25),
        "golden vector 1": (0.25, 0.25, 0.25),
        "all 0": (0, 0, 0),
        "all 1": (1, 1, 1),
        "checkerboard": (0, 1, 0.5),
        "one white pixel": (0, 1, pytest.approx(1 / 24)),
    }
    assert (np.diff(images["checkerboard"], axis=2) != 0).all()


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_every_image_runs_once_at_any_batch_size(batch: int) -> None:
    seen: list[bytes] = []

    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        assert images.shape == (batch, 3, 4, 6) and images.flags.c_contiguous
        seen.extend(image.tobytes() for image in images)
        return {"am1": images}

    assert probe_precision(run, GOLDEN, batch, "fp16") == 6
    assert {image.tobytes() for image in make_probe_images(GOLDEN).values()} == set(seen)
    assert len(seen) == -(-6 // batch) * batch


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_named_with_its_image(bad: float) -> None:
    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        features = images.copy()
        features[images.min(axis=(1, 2, 3)) == 1.0, 0, 0, 0] = bad
        return {"image": images, "f3": features}

    with pytest.raises(EngineError, match="in fp16, 'f3' holds values .* for the image 'all 1'"):
        probe_precision(run, GOLDEN, 4, "fp16")
