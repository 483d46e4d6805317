"""Artificial defects: what is painted, where, and that chance comes from the generator alone."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ndp_rt.images.painting.defects import ALWAYS, DefectSettings, paint_defect, paint_spots
from ndp_rt.images.painting.kinds import TRAINING, UNSEEN, Kind, measure_contrast

FloatArray = npt.NDArray[np.float32]


def checkered(_rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return a texture that is like no surface: black and white pixels in turn."""
    pattern = (np.indices((height, width)).sum(axis=0) % 2).astype(np.float32)
    return np.repeat(pattern[:, :, None], 3, axis=2)


def make_surface(rng: np.random.Generator, height: int, width: int, channels: int) -> FloatArray:
    return rng.uniform(0.35, 0.65, (height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
@pytest.mark.parametrize("name", [*TRAINING, *UNSEEN])
def test_every_kind_paints_a_defect_where_it_says(rng, name, size, channels):
    surface = make_surface(rng, *size, channels)
    before, kind = surface.copy(), {**TRAINING, **UNSEEN}[name]
    found = 0
    for _ in range(12):
        painted, label = paint_defect(rng, surface, checkered, ALWAYS, {name: kind})
        assert painted.dtype == np.float32
        assert painted.shape == surface.shape
        assert label.shape == size
        assert 0.0 <= painted.min() <= painted.max() <= 1.0
        changed = (painted != surface).any(axis=2)
        if label.any():
            found += 1
            beside = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            assert beside[label].all()
            assert label.mean() <= 0.6
        else:
            assert painted is surface
    assert found >= 4
    np.testing.assert_array_equal(surface, before)


def test_the_kinds_to_judge_by_are_not_those_of_training():
    assert not set(TRAINING) & set(UNSEEN)
    assert not set(TRAINING.values()) & set(UNSEEN.values())


def test_areas_range_over_an_order_of_magnitude(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 128, 128, 3)
    areas = [paint_defect(rng, surface, checkered, ALWAYS)[1].mean() for _ in range(200)]
    areas = [share for share in areas if share]
    assert np.quantile(areas, 0.1) < 0.006
    assert np.quantile(areas, 0.9) > 0.06


def test_strength_follows_the_surfaces_contrast(rng: np.random.Generator) -> None:
    """Half the contrast, as of 12 bits in 16 that are read as 16, gives half the change: the same defect to the eye."""
    surface = make_surface(rng, 64, 64, 1)
    faint = (0.4 + 0.25 * (surface - 0.5)).astype(np.float32)
    assert measure_contrast(faint) < 0.4 * measure_contrast(surface)
    changes = []
    for image in (surface, faint):
        found = []
        for seed in range(40):
            painted, label = paint_defect(
                np.random.default_rng(seed), image, checkered, ALWAYS, {"dent": TRAINING["dent"]}
            )
            if label.any():
                found.append(np.abs(painted - image).max())
        changes.append(np.median(found))
    assert changes[1] < 0.7 * changes[0]


def test_defect_free_images_come_with_an_empty_mask(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    painted, label = paint_defect(rng, surface, checkered, DefectSettings(defect_free_share=1.0))
    assert painted is surface
    assert not label.any()


def test_the_same_seed_paints_the_same_defect(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    for seed in range(10):
        first, second = (paint_defect(np.random.default_rng(seed), surface, checkered, ALWAYS) for _ in range(2))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_a_kind_of_weight_zero_is_not_painted(rng: np.random.Generator) -> None:
    only_holes = replace(ALWAYS, **{name: 0.0 for name in TRAINING if name != "hole"})
    called = []

    def record(name: str) -> Kind:
        return lambda rng, surface: called.append(name) or TRAINING[name](rng, surface)

    surface = make_surface(rng, 64, 64, 3)
    for _ in range(10):
        paint_defect(rng, surface, checkered, only_holes, {name: record(name) for name in TRAINING})
    assert set(called) == {"hole"}


def test_spots_change_a_good_image_within_its_range(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    spotted = [paint_spots(rng, surface, checkered, ALWAYS) for _ in range(10)]
    assert all(s.shape == surface.shape and 0.0 <= s.min() <= s.max() <= 1.0 for s in spotted)
    assert sum(not np.array_equal(s, surface) for s in spotted) >= 8


def test_rejects_a_weight_above_one() -> None:
    with pytest.raises(ValueError, match="scratch: expected 0 to 1, got 1.5"):
        DefectSettings(scratch=1.5)


def test_rejects_settings_without_a_kind() -> None:
    with pytest.raises(ValueError, match="above 0, got none"):
        DefectSettings(**dict.fromkeys(TRAINING, 0.0))
