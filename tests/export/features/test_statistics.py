"""Statistics of features: the Mahalanobis distance, and z-scores of each position."""

import numpy as np
import pytest
import torch

from ndp_rt.export.features.map_range import MapRange
from ndp_rt.export.features.statistics import (
    BLANK_RATIO,
    BLANK_WEIGHT,
    FOREIGN_RATIO,
    RIDGE,
    SMALLEST_SPREAD,
    Distance,
    Statistics,
    find_length,
    find_level,
    join,
)

pytestmark = pytest.mark.torch


def correlated(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(count, 4, 8, 6, generator=generator)
    mixed[:, 1] += 2.0 * mixed[:, 0]
    mixed[:, 2] *= 30.0
    return mixed + 5.0


def test_the_distance_is_mahalanobis() -> None:
    features = correlated()
    distance = Distance(4)
    found = distance.fit(features)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy()
    spread = rows.std(axis=0, ddof=1) + SMALLEST_SPREAD
    scaled = (rows - rows.mean(axis=0)) / spread
    covariance = scaled.T @ scaled / len(scaled) + RIDGE * np.eye(4)
    expected = np.sqrt(np.einsum("ki,ij,kj->k", scaled, np.linalg.inv(covariance), scaled))
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).reshape(-1).numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(distance(features).numpy(), found.numpy(), rtol=1e-5)


def test_the_distance_ignores_scale_and_offset_of_channels() -> None:
    features = correlated()
    scale = torch.tensor([0.01, 100.0, 3.0, 1.0])[:, None, None]
    first, second = Distance(4).fit(features), Distance(4).fit(features * scale - 7.0)
    np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=2e-2)


def test_constant_features_give_finite_distances() -> None:
    found = Distance(3).fit(torch.full((2, 3, 4, 4), 0.5))
    assert torch.isfinite(found).all()


def fitted(rows: int = 16, columns: int = 8) -> tuple[Statistics, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(c, rows // k, columns // k) for c, k in ((2, 1), (3, 2), (4, 4))]
    levels = [torch.randn(12, *size, generator=generator) for size in sizes]
    levels[1][:, :, 0, 0] *= 5.0  # a place that is always unusual
    statistics = Statistics((2, 3, 4), 4 * rows, 4 * columns)
    statistics.fit(join(levels))
    return statistics, levels


def test_z_scores_of_good_images_have_mean_0_and_deviation_1_at_each_position() -> None:
    statistics, levels = fitted()
    level = find_level((statistics.distance(join(levels)) - statistics.distance_mean) / statistics.distance_spread)
    scores = statistics(levels)[0] + level
    assert scores.shape == (12, 1, 8, 4)
    np.testing.assert_allclose(scores.mean(dim=0).numpy(), 0.0, atol=1e-4)
    np.testing.assert_allclose(scores.std(dim=0, correction=0).numpy(), 1.0, atol=2e-2)


def whiten(statistics: Statistics, levels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the joined features, whitened, and their distances."""
    whitened = statistics.distance.whiten(join(levels))
    return whitened, find_length(whitened)


def test_what_lifts_a_whole_image_leaves_its_z_scores() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = whiten(statistics, levels)
    before, foreign = statistics.compare(whitened)
    lifted, _ = statistics.compare(whitened * (distances + 7.0 * statistics.distance_spread) / distances)
    np.testing.assert_allclose(lifted.numpy(), before.numpy(), atol=1e-3)
    assert foreign.abs().max() == 0.0


def test_a_defect_of_a_third_of_the_image_keeps_its_z_scores() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = whiten(statistics, levels)
    before, _ = statistics.compare(whitened)
    larger = (distances + 9.0 * statistics.distance_spread) / distances
    whitened[:, :, :10] *= larger[:, :, :10]
    after, foreign = statistics.compare(whitened)
    assert (after - before)[:, :, :10].min() > 8.0
    assert foreign.abs().max() == 0.0


def test_an_image_that_is_far_from_the_surface_all_over_is_foreign() -> None:
    statistics, levels = fitted(64, 64)
    whitened, _ = whiten(statistics, levels)
    scales = torch.linspace(0.7, 9.0, len(whitened))[:, None, None, None]
    _, foreign = statistics.compare(scales * whitened)
    expected = np.maximum(0.0, scales.ravel().numpy() - FOREIGN_RATIO)
    np.testing.assert_allclose(foreign.ravel().numpy(), expected, atol=0.3)
    assert foreign[-1] > 1.0


def test_an_image_without_structure_is_foreign() -> None:
    statistics, levels = fitted(64, 64)
    whitened, _ = whiten(statistics, levels)
    even = whitened.mean(dim=(2, 3), keepdim=True).expand_as(whitened)
    shares = torch.linspace(0.0, 1.0, len(whitened))[:, None, None, None]
    _, foreign = statistics.compare(even + shares * (whitened - even))
    expected = BLANK_WEIGHT * np.maximum(0.0, BLANK_RATIO - shares.ravel().numpy())
    np.testing.assert_allclose(foreign.ravel().numpy(), expected, atol=0.1)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (32, 32), (33, 31)])
def test_the_level_is_the_median_of_the_blocks(size: tuple[int, int]) -> None:
    scores = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(1))
    block = min(4, *size)
    rows, columns = (side // block * block for side in size)
    means = scores[:, 0, :rows, :columns].reshape(3, rows // block, block, columns // block, block).mean(dim=(2, 4))
    ordered = np.sort(means.reshape(3, -1).numpy(), axis=1)
    expected = ordered[:, ordered.shape[1] // 2]
    np.testing.assert_allclose(find_level(scores).ravel().numpy(), expected, rtol=1e-5)


def test_the_map_keeps_the_order_and_leaves_room() -> None:
    to_map = MapRange()
    to_map.fit((3.0, 6.0), (0.25, 0.75))
    scores = torch.linspace(-10.0, 15.0, 400)
    found = to_map(scores, torch.zeros(()))
    assert (found.diff() > 0).all()
    np.testing.assert_allclose(to_map(torch.tensor([3.0, 6.0]), torch.zeros(())).numpy(), [0.25, 0.75], atol=1e-6)


def test_the_map_of_a_foreign_image_is_certain_of_a_defect() -> None:
    to_map = MapRange()
    to_map.fit((0.0, 10.0), (0.05, 0.95))
    foreign = torch.tensor([0.0, 0.25, 1.0])[:, None, None, None]
    least = to_map(torch.zeros(3, 1, 2, 2), foreign).amin(dim=(1, 2, 3))
    assert least[0] == pytest.approx(0.05)
    assert 0.2 < least[1] < 0.4
    assert least[2] > 0.99
