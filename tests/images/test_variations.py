"""The mild changes that a threshold has to stand."""

import numpy as np
import pytest

from ndp_rt.images.variations import vary


@pytest.mark.parametrize(("h", "w"), [(1, 1), (31, 64), (256, 256)])
def test_are_the_same_each_time_and_stay_images(rng: np.random.Generator, h: int, w: int) -> None:
    image = rng.random((3, h, w), dtype=np.float32)
    varied = vary(image)
    assert varied.shape == (7, 3, h, w) and varied.dtype == np.float32
    assert varied.min() >= 0.0 and varied.max() <= 1.0
    np.testing.assert_array_equal(varied, vary(image))


def test_change_light_contrast_and_focus(rng: np.random.Generator) -> None:
    image = 0.25 + rng.random((3, 256, 256), dtype=np.float32) / 2
    darker, brighter, flatter, steeper, blurred, _, _ = vary(image)
    assert darker.mean() < image.mean() < brighter.mean()
    assert flatter.std() < image.std() < steeper.std()
    assert blurred.std() < 0.95 * image.std()


@pytest.mark.parametrize("side_px", [256, 512])
def test_change_the_position_by_a_share_of_the_size(side_px: int) -> None:
    image = np.zeros((3, side_px, side_px), np.float32)
    spot = slice(side_px // 2 - 8, side_px // 2 + 8)
    image[:, spot, spot] = 1.0
    places = [float(np.average(np.arange(side_px), weights=one[0].sum(axis=0))) for one in (image, *vary(image)[5:])]
    assert places[1] - places[0] == pytest.approx(-3 * side_px / 256, abs=0.2)
    assert places[2] - places[0] == pytest.approx(3 * side_px / 256, abs=0.2)
