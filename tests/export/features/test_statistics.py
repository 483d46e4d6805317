"""Statistics of features: the Mahalanobis distance, and z-scores of each position."""

import numpy as np
import pytest
import torch

from ndp_rt.export.features.map_range import MapRange
from ndp_rt.export.features.prototypes import find_nearest, find_prototypes
from ndp_rt.export.features.statistics import (
    BLANK_RATIO,
    BLANK_WEIGHT,
    FOREIGN_LIMITS,
    FOREIGN_QUANTILE,
    FOREIGN_SPREAD,
    RIDGE,
    ROWS_EACH,
    SMALLEST_SPREAD,
    Distance,
    Nearest,
    Statistics,
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


def test_prototypes_are_the_centres_of_what_lies_together() -> None:
    generator = torch.Generator().manual_seed(5)
    centres = torch.tensor([[-9.0, 0.0], [0.0, 9.0], [9.0, -9.0], [20.0, 20.0]])
    places = torch.arange(4000) % 4
    found = find_prototypes(centres[places] + torch.randn(4000, 2, generator=generator), 4)
    order = find_nearest(centres, found)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(found[order].numpy(), centres.numpy(), atol=0.15)


@pytest.mark.parametrize("side", [1, 3, 20])
def test_few_features_are_not_their_own_prototypes(side: int) -> None:
    features = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    nearest = Nearest(3)
    nearest.fit(features)
    assert len(nearest.compare.weight.unique(dim=0)) == max(1, 2 * side * side // ROWS_EACH)
    assert nearest(features).median() > 0.3


def test_the_distance_is_that_to_the_nearest_prototype() -> None:
    features = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(4))
    nearest = Nearest(3)
    nearest.fit(features)
    prototypes = -0.5 * nearest.compare.weight[:, :, 0, 0].double()
    rows = features.permute(0, 2, 3, 1).reshape(-1, 3).double()
    expected = torch.cdist(rows, prototypes).amin(1).reshape(2, 1, 20, 20)
    np.testing.assert_allclose(nearest(features).numpy(), expected.numpy(), atol=2e-3)


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
    level = find_level((statistics.measure(join(levels))[1] - statistics.distance_mean) / statistics.distance_spread)
    scores = statistics(levels)[0] + level
    assert scores.shape == (12, 1, 8, 4)
    np.testing.assert_allclose(scores.mean(dim=0).numpy(), 0.0, atol=1e-4)
    np.testing.assert_allclose(scores.std(dim=0, correction=0).numpy(), 1.0, atol=2e-2)


def test_what_lifts_a_whole_image_leaves_its_z_scores() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = statistics.measure(join(levels))
    before, foreign = statistics.compare(whitened, distances)
    lifted, _ = statistics.compare(whitened, distances + 7.0 * statistics.distance_spread)
    np.testing.assert_allclose(lifted.numpy(), before.numpy(), atol=1e-3)
    assert foreign.abs().max() == 0.0


def test_a_defect_of_a_third_of_the_image_keeps_its_z_scores() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = statistics.measure(join(levels))
    before, _ = statistics.compare(whitened, distances)
    defective = distances.clone()
    defective[:, :, :10] += 9.0 * statistics.distance_spread[:, :, :10]
    after, foreign = statistics.compare(whitened, defective)
    assert (after - before)[:, :, :10].min() > 8.0
    assert foreign.abs().max() == 0.0


def test_an_image_that_is_far_from_the_surface_all_over_is_foreign() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = statistics.measure(join(levels))
    scales = torch.linspace(0.7, 9.0, len(whitened))[:, None, None, None]
    _, foreign = statistics.compare(whitened, scales * distances)
    expected = np.maximum(0.0, scales.ravel().numpy() - statistics.foreign_ratio.numpy())
    np.testing.assert_allclose(foreign.ravel().numpy(), expected, atol=0.3)
    assert foreign[-1] > 1.0


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(("spread", "least", "most"), [(0.0, 1.5, 1.5), (0.1, 1.8, 2.8), (2.0, 6.0, 6.0)])
def test_the_more_good_images_vary_the_farther_a_foreign_one_lies(spread: float, least: float, most: float) -> None:
    generator = torch.Generator().manual_seed(6)
    lifts = torch.exp(spread * torch.randn(40, 1, 1, 1, generator=generator))
    joined = lifts * torch.randn(40, 4, 32, 32, generator=generator)
    statistics = Statistics((1, 1, 2), 256, 256)
    statistics.fit(joined)
    ratios = find_level(statistics.measure(joined)[1] / statistics.distance_mean).flatten()
    expected = 1.0 + FOREIGN_SPREAD * (np.quantile(ratios.numpy(), FOREIGN_QUANTILE) - 1.0)
    assert float(statistics.foreign_ratio) == pytest.approx(np.clip(expected, *FOREIGN_LIMITS), rel=1e-4)
    assert least <= float(statistics.foreign_ratio) <= most


def test_an_image_without_structure_is_foreign() -> None:
    statistics, levels = fitted(64, 64)
    whitened, distances = statistics.measure(join(levels))
    even = whitened.mean(dim=(2, 3), keepdim=True).expand_as(whitened)
    shares = torch.linspace(0.0, 1.0, len(whitened))[:, None, None, None]
    _, foreign = statistics.compare(even + shares * (whitened - even), distances)
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
