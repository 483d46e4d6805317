"""Frames without a surface."""

import numpy as np
import pytest

from ndp_rt.images.painting.blank import NOISE, draw_blank


@pytest.mark.parametrize("channels", [1, 3])
def test_a_blank_frame_has_one_brightness_and_the_images_shape(rng: np.random.Generator, channels: int) -> None:
    image = rng.random((48, 32, channels), np.float32)
    frames = [draw_blank(rng, image) for _ in range(40)]
    levels = []
    for frame in frames:
        assert frame is not None
        assert frame.shape == image.shape and frame.dtype == np.float32
        assert frame.std() < 2.0 * NOISE
        levels.append(float(frame.mean()))
    assert min(levels) < 0.05 and max(levels) > 0.95


def test_a_plain_surface_is_not_called_blank(rng: np.random.Generator) -> None:
    paper = np.full((32, 32, 1), 0.9, np.float32) + rng.normal(0.0, 0.005, (32, 32, 1)).astype(np.float32)
    frames = [draw_blank(rng, paper) for _ in range(60)]
    assert any(frame is None for frame in frames)
    assert all(abs(frame.mean() - paper.mean()) > 0.15 for frame in frames if frame is not None)
