"""Batches are functions of seed, phase and step; good images stay good when they are jittered."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ndp_rt.export.data.batches import Batch, augment, draw_batch, draw_batches, draw_example
from ndp_rt.export.data.images import GoodImages, textures_from_data
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.training.settings import AugmentSettings
from ndp_rt.images.listing import list_folder
from ndp_rt.images.painting.defects import DefectSettings
from ndp_rt.images.textures import TextureImages
from tests.export.tiny_run import TINY, write_surface

pytestmark = pytest.mark.torch
NO_CHANGE = AugmentSettings(
    warp_share=0.0, is_mirrored=False, contrast=0.0, brightness=0.0, blur_share=0.0, noise_share=0.0
)


@pytest.fixture(scope="module")
def settings() -> NdpNetSettings:
    return NdpNetSettings(**{**TINY, "crop_px": 64})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, settings: NdpNetSettings) -> GoodImages:
    return GoodImages(list_folder(write_surface(tmp_path_factory.mktemp("data"))).files, settings.contract)


@pytest.fixture(scope="module")
def textures(images: GoodImages) -> TextureImages:
    return textures_from_data(images)


def draw(images: GoodImages, textures: TextureImages, settings: NdpNetSettings, phase: int, step: int) -> Batch:
    return draw_batch(images, textures, settings, phase, step, partial(draw_example, settings=settings))


def test_a_batch_is_three_arrays_of_one_size(
    images: GoodImages, textures: TextureImages, settings: NdpNetSettings
) -> None:
    batch = draw(images, textures, settings, 1, 0)
    assert batch.good.shape == batch.defective.shape == (2, 3, 64, 64)
    assert batch.mask.shape == (2, 1, 64, 64)
    assert set(np.unique(batch.mask)) <= {0.0, 1.0}
    assert all(array.dtype == np.float32 for array in (batch.good, batch.defective, batch.mask))


def test_steps_phases_and_seeds_each_give_another_batch(
    images: GoodImages, textures: TextureImages, settings: NdpNetSettings
) -> None:
    first = draw(images, textures, settings, 1, 3).good
    assert np.array_equal(first, draw(images, textures, settings, 1, 3).good)
    assert not np.array_equal(first, draw(images, textures, settings, 1, 4).good)
    assert not np.array_equal(first, draw(images, textures, settings, 2, 3).good)
    assert not np.array_equal(first, draw(images, textures, replace(settings, seed=1), 1, 3).good)


def test_batches_begin_at_the_step_asked_for_and_end_with_the_phase(
    images: GoodImages, textures: TextureImages, settings: NdpNetSettings
) -> None:
    drawn = list(draw_batches(images, textures, settings, 2, 3, partial(draw_example, settings=settings)))
    assert len(drawn) == settings.phase_steps[1] - 3
    np.testing.assert_array_equal(drawn[0].defective, draw(images, textures, settings, 2, 3).defective)


def test_defect_free_batches_equal_their_good_images(
    images: GoodImages, textures: TextureImages, settings: NdpNetSettings
) -> None:
    whole = replace(settings, defects=DefectSettings(defect_free_share=1.0))
    batch = draw(images, textures, whole, 1, 0)
    np.testing.assert_array_equal(batch.good, batch.defective)
    assert batch.mask.sum() == 0


def test_harmless_spots_are_in_the_good_image_too(
    images: GoodImages, textures: TextureImages, settings: NdpNetSettings
) -> None:
    quiet = replace(NO_CHANGE, spot_share=1.0)
    spotted = replace(settings, defects=DefectSettings(defect_free_share=1.0), augment=quiet)
    plain = replace(spotted, augment=NO_CHANGE)
    batch = draw(images, textures, spotted, 1, 0)
    np.testing.assert_array_equal(batch.good, batch.defective)
    assert not np.array_equal(batch.good, draw(images, textures, plain, 1, 0).good)


def test_without_jitter_a_crop_is_a_part_of_the_image(rng: np.random.Generator) -> None:
    image = np.arange(90 * 70, dtype=np.float32).reshape(90, 70, 1) / 6300.0
    crop = augment(rng, image, 64, NO_CHANGE)
    top, left = divmod(int(np.rint(crop[0, 0, 0] * 6300.0)), 70)
    np.testing.assert_allclose(crop, image[top : top + 64, left : left + 64], atol=1e-6)


@pytest.mark.parametrize(("size", "crop"), [((64, 128, 3), (64, 128, 3)), ((128, 128, 1), (128, 128, 1))])
def test_a_crop_larger_than_the_image_is_the_whole_image(
    rng: np.random.Generator, size: tuple[int, int, int], crop: tuple[int, int, int]
) -> None:
    assert augment(rng, np.full(size, 0.5, np.float32), 256, AugmentSettings()).shape == crop


def test_jitter_stays_in_range(rng: np.random.Generator) -> None:
    image = rng.random((80, 80, 3)).astype(np.float32)
    for _ in range(20):
        crop = augment(rng, image, 64, AugmentSettings())
        assert crop.dtype == np.float32
        assert 0.0 <= crop.min() <= crop.max() <= 1.0
