"""What does not count: an ignore mask and a smallest area, through every way of an inspector."""

import dataclasses
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from scipy.ndimage import label

from ndp_rt import Inspector, Result, open_bundle
from ndp_rt.bundle.open import GOLDEN_FILE
from ndp_rt.bundle.write import replace_files
from ndp_rt.decide.opening import list_opened
from ndp_rt.decide.score import score_map
from ndp_rt.editing import to_tensors
from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.read import read_image
from ndp_rt.pipeline.overlays import CONTOUR, draw_overlay
from ndp_rt.program.program import DecisionRules
from tests.fakes.fake_cupy import FakeCuda
from tests.tolerances import assert_close

SIDE = 64
DEMO = Path(__file__).parents[1] / "ndp_rt/data"
RIGHT = np.zeros((SIDE, SIDE), np.uint8)
RIGHT[:, SIDE // 2 :] = 255


@pytest.fixture
def images(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(6)]


def find_maps(bundle: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    """Return the maps of images of the map's size, which are the smoothed maps themselves."""
    with Inspector.open(bundle, threads=1, threshold=0.0) as plain:
        return [plain.inspect(image).anomaly_map for image in images]


def list_areas(mask: np.ndarray) -> list[int]:
    labels, count = label(mask, np.ones((3, 3)))
    return sorted(np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist())


def judge(smoothed: np.ndarray, threshold: float, ignored: np.ndarray, area: int) -> list[int]:
    """Return the areas of the regions that count, in rising order."""
    return [one for one in list_areas((smoothed >= threshold) & ~ignored) if one >= area]


@pytest.mark.parametrize("area", [1, 12])
@pytest.mark.parametrize("has_mask", [False, True])
def test_every_way_leaves_out_what_does_not_count(
    tiny_bundle: Path, images: list[np.ndarray], area: int, has_mask: bool
) -> None:
    maps = find_maps(tiny_bundle, images)
    threshold = float(np.quantile(np.stack(maps), 0.93))
    ignored = (RIGHT if has_mask else np.zeros_like(RIGHT)) != 0
    settings: dict[str, Any] = {"smallest_area_px": area, **({"ignore_mask": RIGHT} if has_mask else {})}
    with Inspector.open(tiny_bundle, threads=2, batches=(1, 2), threshold=threshold, **settings) as opened:
        ways = [
            [opened.inspect(image) for image in images],
            opened.inspect_batch(images),
            list(opened.stream(images)),
            [opened.inspect_large(image) for image in images],
        ]
        no_map = opened.inspect(images[0], map_out=np.empty((0, 0), np.float32))
    assert (no_map.score, no_map.defects) == (ways[0][0].score, ways[0][0].defects)
    for results in ways:
        for result, smoothed in zip(results, maps, strict=True):
            expected = judge(smoothed, threshold, ignored, area)
            assert sorted(defect.area_px for defect in result.defects) == expected
            assert result.is_defect == (result.score >= threshold) == bool(expected)
            assert list_areas(result.make_mask()) == expected
            assert_close(result.anomaly_map, np.where(ignored, 0, smoothed), "map", "float32")
            # The score is where a threshold would change the decision.
            assert judge(smoothed, result.score - 1e-5, ignored, area)
            assert not judge(smoothed, result.score + 1e-5, ignored, area)


@pytest.mark.parametrize("batches", [(1,), (1, 4)])
def test_regions_of_a_large_image_count_whole_in_whatever_tiles_they_lie(
    tiny_bundle: Path, rng: np.random.Generator, batches: tuple[int, ...]
) -> None:
    image = rng.integers(0, 256, (150, 90, 3), dtype=np.uint8)
    ignored = np.zeros((150, 90), np.bool_)
    ignored[50:80, 20:] = True
    with Inspector.open(tiny_bundle, threads=1, batches=batches, threshold=0.0) as plain:
        whole = plain.inspect_large(image).anomaly_map.copy()
    threshold = float(np.quantile(whole, 0.8))
    areas = judge(whole, threshold, ignored, 1)
    for area in (1, areas[len(areas) // 2], areas[-1], areas[-1] + 1):
        with Inspector.open(
            tiny_bundle, threads=1, batches=batches, threshold=threshold, ignore_mask=ignored, smallest_area_px=area
        ) as opened:
            result = opened.inspect_large(image)
        expected = judge(whole, threshold, ignored, area)
        assert sorted(defect.area_px for defect in result.defects) == expected == list_areas(result.make_mask())
        assert result.is_defect == (result.score >= threshold) == bool(expected)
        assert np.array_equal(result.anomaly_map, np.where(ignored, 0, whole))


def test_a_score_of_the_highest_values_is_that_of_the_opened_map(
    tiny_bundle: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "highest.ndp"))
    rules = DecisionRules(smooth="none", score="top_k_mean", k=9)
    golden = open_bundle(bundle).golden()
    scores = np.array([score_map(one, rules) for one in golden.map[:, 0]], np.float32)
    content = save(to_tensors(dataclasses.replace(golden, score=scores)))
    replace_files(open_bundle(bundle), {GOLDEN_FILE: content}, lambda now: dataclasses.replace(now, decision=rules))
    with Inspector.open(bundle, threads=1, threshold=0.0) as plain:
        smoothed = plain.inspect(images[0]).anomaly_map
        large = plain.inspect_large(np.tile(images[0], (2, 2, 1))).score
    left = np.sort(smoothed[:, : SIDE // 2].ravel())[-9:].mean()
    with Inspector.open(bundle, threads=1, ignore_mask=RIGHT) as opened:
        assert_close(opened.inspect(images[0]).score, left, "top_k_mean", "float32")
    highest = list_opened(smoothed, RIGHT == 0, 4, 9)
    with Inspector.open(bundle, threads=1, ignore_mask=RIGHT, smallest_area_px=4) as opened:
        assert_close(opened.inspect(images[0]).score, highest.mean(), "top_k_mean", "float32")
        assert_close(opened.inspect_large(images[0]).score, highest.mean(), "top_k_mean", "float32")
    with Inspector.open(bundle, threads=1, smallest_area_px=2) as opened:
        assert opened.inspect_large(np.tile(images[0], (2, 2, 1))).score <= large
    said = "smallest area: expected a tile of which 4097 pixels in one piece count"
    with (
        Inspector.open(bundle, threads=1, smallest_area_px=SIDE * SIDE + 1) as opened,
        pytest.raises(InputError, match=said),
    ):
        opened.inspect_large(np.tile(images[0], (2, 2, 1)))


@pytest.mark.nightly
def test_the_gpu_leaves_out_the_same(fake_gpu: FakeCuda, tiny_bundle: Path, images: list[np.ndarray]) -> None:
    threshold = float(np.quantile(np.stack(find_maps(tiny_bundle, images)), 0.93))
    settings: dict[str, Any] = {"threshold": threshold, "ignore_mask": RIGHT, "smallest_area_px": 12, "contours": True}
    no_map = np.empty((0, 0), np.float32)
    with (
        Inspector.open(tiny_bundle, threads=1, **settings) as host,
        Inspector.open(tiny_bundle, device="cuda", backend="fake", batches=(1, 2), **settings) as opened,
    ):
        expected = [host.inspect(image) for image in images]
        assert sum(one.is_defect for one in expected) > 0
        for results in (
            [opened.inspect(image) for image in images],
            [opened.inspect(image, map_out=no_map) for image in images],
            opened.inspect_batch(images),
            list(opened.stream(images)),
        ):
            for result, one in zip(results, expected, strict=True):
                assert_close(result.score, one.score, "map", "float32")
                assert [defect.area_px for defect in result.defects] == [defect.area_px for defect in one.defects]


def test_images_of_another_size_are_refused_before_anything_runs(
    tiny_bundle: Path, images: list[np.ndarray], rng: np.random.Generator
) -> None:
    other = rng.integers(0, 256, (SIDE, SIDE + 1), dtype=np.uint8)
    said = "image: expected 64 x 64 pixels, as the ignore mask has, got 64 x 65"
    with Inspector.open(tiny_bundle, threads=2, ignore_mask=RIGHT) as opened:
        for call in (opened.inspect, opened.inspect_large, lambda image: list(opened.stream([image]))):
            with pytest.raises(InputError, match=said):
                call(other)
        with pytest.raises(InputError, match=f"image 1 of the batch: {said}"):
            opened.inspect_batch([images[0], other])
        opened.warm_up()  # which inspects no image of the caller's
        assert opened.inspect(images[0]).score > 0


def test_a_smallest_area_is_in_the_images_pixels(tiny_bundle: Path, rng: np.random.Generator) -> None:
    small = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    large = small.repeat(3, axis=0).repeat(2, axis=1)
    with Inspector.open(tiny_bundle, threads=1, smallest_area_px=20) as opened:
        score = opened.inspect(small).score
    for settings in ({"smallest_area_px": 120}, {"smallest_area_mm2": 30.0, "mm_per_pixel": 0.5}):
        with Inspector.open(tiny_bundle, threads=1, **settings) as opened:
            assert_close(opened.inspect(large).score, score, "map", "float32")
            assert all(defect.area_px >= 120 for defect in opened.inspect(large).defects)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"smallest_area_px": 0}, "smallest_area_px: expected a whole number from 1 to 2147483647, got 0"),
        ({"smallest_area_px": 2.5}, "smallest_area_px: expected a whole number .* got 2.5"),
        ({"smallest_area_px": 2**31}, "smallest_area_px: expected a whole number .* got 2147483648"),
        ({"smallest_area_mm2": 1.0}, "smallest_area_mm2: expected mm_per_pixel with it, got none"),
        ({"smallest_area_mm2": 0.0, "mm_per_pixel": 1.0}, "smallest_area_mm2: expected above 0"),
        ({"smallest_area_mm2": float("nan"), "mm_per_pixel": 1.0}, "smallest_area_mm2: expected above 0"),
        ({"smallest_area_mm2": 1.0, "mm_per_pixel": 1.0, "smallest_area_px": 3}, "expected .* or .*, got both"),
        ({"ignore_mask": np.ones((4, 4), np.uint8)}, "got every pixel marked"),
    ],
)
def test_refuses_settings_that_mean_nothing(tiny_bundle: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Inspector.open(tiny_bundle, threads=1, **settings)


def test_a_masks_file_that_is_missing_is_an_error(tiny_bundle: Path) -> None:
    with pytest.raises(ImageFileError, match=r"none\.png"):
        Inspector.open(tiny_bundle, threads=1, ignore_mask="none.png")


def test_a_copy_from_a_pickle_leaves_out_the_same(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    with Inspector.open(tiny_bundle, threads=1, ignore_mask=RIGHT, smallest_area_px=9) as opened:
        expected = opened.inspect(images[0]).score
        with pickle.loads(pickle.dumps(opened)) as copy:
            assert copy.inspect(images[0]).score == expected


def test_contours_are_there_where_they_are_asked_for(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    for wants in (False, True):
        with Inspector.open(tiny_bundle, threads=1, threshold=0.4, contours=wants) as opened:
            for result in (opened.inspect(images[0]), opened.inspect_large(images[0])):
                assert result.defects
                assert all((defect.contour is not None) == wants for defect in result.defects)


def test_a_mask_needs_a_map(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    with Inspector.open(tiny_bundle, threads=1) as opened:
        result = opened.inspect(images[0], map_out=np.empty((0, 0), np.float32))
    with pytest.raises(InputError, match="mask: expected a result with a map, got one without"):
        result.make_mask()


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[np.ndarray, Result]]:
    """A photograph with a defect, and what is found without a mask."""
    image = read_image(DEMO / "demo_pnm/defect.ppm")
    with Inspector.open(DEMO / "demo.ndp") as opened:
        yield image, opened.inspect(image)


def test_a_piece_whose_defect_is_ignored_is_good(demo: tuple[np.ndarray, Result]) -> None:
    image, plain = demo
    assert plain.is_defect
    ignored = np.zeros(image.shape[:2], np.uint8)
    for one in plain.defects:  # with a margin, as the map falls off gently
        top, left = max(0, one.y_px - 8), max(0, one.x_px - 8)
        ignored[top : one.y_px + one.height_px + 8, left : one.x_px + one.width_px + 8] = 1
    with Inspector.open(DEMO / "demo.ndp", ignore_mask=ignored) as opened:
        result = opened.inspect(image)
    assert not result.is_defect and result.score < plain.threshold and result.defects == ()
    assert not result.make_mask().any()


def test_a_piece_whose_regions_are_all_smaller_is_good_and_shows_no_outline(demo: tuple[np.ndarray, Result]) -> None:
    image, plain = demo
    largest = max(defect.area_px for defect in plain.defects)
    for area, is_defect in ((largest, True), (largest + 1, False)):
        with Inspector.open(DEMO / "demo.ndp", smallest_area_px=area) as opened:
            result = opened.inspect(image)
        assert result.is_defect == is_defect == bool(result.make_mask().any())
        assert np.array_equal(result.anomaly_map, plain.anomaly_map)
        outlined = (draw_overlay(image, result, "one.png") == np.array(CONTOUR)).all(axis=2).any()
        assert outlined == is_defect
