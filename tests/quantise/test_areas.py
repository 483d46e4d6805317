"""Areas, and how sure the difference of two is."""

import numpy as np
import pytest

from ndp_rt.evaluate.metrics import measure_aupro, measure_pixel_rocauc, measure_rocauc
from ndp_rt.quantise.areas import measure_area, rank
from ndp_rt.quantise.figures import Outcome, compare_outcomes
from ndp_rt.quantise.samples import KeptSample, keep


def measure(scores: np.ndarray, positives: np.ndarray, limit: float = 1.0) -> tuple[float, np.ndarray]:
    images = np.arange(len(scores))
    return measure_area(
        rank(scores[~positives], scores[positives]),
        np.ones(int(positives.sum())),
        good_images=images[~positives],
        defective_images=images[positives],
        image_count=len(scores),
        limit=limit,
    )


def test_the_area_is_scikit_learns_ties_included(rng: np.random.Generator) -> None:
    positives = rng.random(200) < 0.4
    scores = np.round(rng.normal(positives, 1.0), 1).astype(np.float32)
    area, parts = measure(scores, positives)
    assert area == pytest.approx(measure_rocauc(scores, positives), abs=1e-12)
    assert parts.sum() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_the_error_is_what_samples_of_a_population_show(rng: np.random.Generator, limit: float) -> None:
    """Of two engines whose scores differ by noise: the spread of 400 differences, and the error that each states."""
    differences, errors = [], []
    for _ in range(400):
        positives = np.arange(160) % 2 == 1
        base = rng.normal(1.2 * positives, 1.0)
        found = base + rng.normal(0.0, 0.2, base.shape)
        (area, parts), (other, other_parts) = (measure(one, positives, limit) for one in (base, found))
        differences.append(area - other)
        errors.append(np.linalg.norm(parts - other_parts))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.15)


def make_samples(rng: np.random.Generator, count: int, side: int) -> tuple[list[KeptSample], list[np.ndarray]]:
    """Images half of which have a square defect, and their masks."""
    masks = [np.zeros((side, side), np.bool_) for _ in range(count)]
    for mask in masks[1::2]:
        top, left, size = rng.integers(0, side - 4), rng.integers(0, side - 4), rng.integers(2, 5)
        mask[top : top + size, left : left + size] = True
    return [keep(np.zeros((3, side, side), np.float32), mask) for mask in masks], masks


def find(maps: np.ndarray, samples: list[KeptSample]) -> Outcome:
    values = [one.ravel()[sample.places] for one, sample in zip(maps, samples, strict=True)]
    return Outcome(scores=maps.max(axis=(1, 2)), values=values)


def test_areas_are_those_of_evaluate_where_every_pixel_is_compared(rng: np.random.Generator) -> None:
    samples, masks = make_samples(rng, 12, 32)  # 1024 pixels: all of them
    maps = (rng.random((12, 32, 32)) + 0.5 * np.stack(masks)).astype(np.float32)
    worse = (maps + rng.normal(0.0, 0.3, maps.shape)).astype(np.float32)
    figures = compare_outcomes(find(worse, samples), find(maps, samples), samples, threshold=1.2)
    assert figures.areas["image_rocauc"] == pytest.approx(
        measure_rocauc(worse.max(axis=(1, 2)), np.arange(12) % 2 == 1)
    )
    assert figures.areas["pixel_rocauc"] == pytest.approx(measure_pixel_rocauc(list(worse), masks), abs=1e-6)
    assert figures.areas["aupro"] == pytest.approx(measure_aupro(list(worse), masks), abs=2e-3)
    for name, drop in figures.drops.items():
        if name != "decisions":
            of_base = compare_outcomes(find(maps, samples), find(maps, samples), samples)
            assert drop.value == pytest.approx(of_base.areas[name] - figures.areas[name])
    assert figures.map_max_abs_difference == pytest.approx(np.abs(worse - maps).max())
    assert figures.score_max_abs_difference == pytest.approx(np.abs(worse.max((1, 2)) - maps.max((1, 2))).max())


def test_the_same_results_drop_by_nothing_for_sure(rng: np.random.Generator) -> None:
    samples, masks = make_samples(rng, 8, 64)
    maps = (rng.random((8, 64, 64)) + 0.5 * np.stack(masks)).astype(np.float32)
    figures = compare_outcomes(find(maps, samples), find(maps, samples), samples)
    assert figures.flip_count == 0
    assert all((drop.value, drop.error) == (0.0, 0.0) for drop in figures.drops.values())


def test_decisions_are_compared_at_thresholds_that_as_many_good_images_reach(rng: np.random.Generator) -> None:
    """Scores that are all twice as large change no decision; a defect that falls below the good ones is lost."""
    samples, _ = make_samples(rng, 8, 32)
    maps = np.zeros((8, 32, 32), np.float32)
    maps[:, 0, 0] = [0.1, 0.6, 0.2, 0.7, 0.3, 0.8, 0.4, 0.9]  # good, defective, ...
    base = find(maps, samples)
    assert compare_outcomes(find(2.0 * maps, samples), base, samples, threshold=0.35).flip_count == 0
    maps[1, 0, 0] = 0.05
    lost = compare_outcomes(find(2.0 * maps, samples), base, samples, threshold=0.35)
    assert lost.flip_count == 1
    assert (lost.drops["decisions"].value, lost.drops["decisions"].error) == (1 / 8, 1 / 8)
