"""Statistics of features: the Mahalanobis distance, and z-scores of each position."""

import numpy as np
import pytest
import torch

from ndp_rt.export.features.map_range import MapRange
from ndp_rt.export.features.statistics import RIDGE, SMALLEST_SPREAD, Distance, Statistics, join

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


def test_z_scores_of_good_images_have_mean_0_and_deviation_1_at_each_position() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(12, c, *size, generator=generator) for c, size in ((2, (16, 8)), (3, (8, 4)), (4, (4, 2)))]
    levels[1][:, :, 0, 0] *= 5.0  # a place that is always unusual
    statistics = Statistics((2, 3, 4), 64, 32)
    statistics.fit(join(levels))
    scores = statistics(levels)
    assert scores.shape == (12, 1, 8, 4)
    np.testing.assert_allclose(scores.mean(dim=0).numpy(), 0.0, atol=1e-4)
    np.testing.assert_allclose(scores.std(dim=0, correction=0).numpy(), 1.0, atol=2e-2)


def test_the_map_keeps_the_order_and_leaves_room() -> None:
    to_map = MapRange()
    to_map.fit((3.0, 6.0), (0.25, 0.75))
    scores = torch.linspace(-10.0, 15.0, 400)
    found = to_map(scores)
    assert (found.diff() > 0).all()
    np.testing.assert_allclose(to_map(torch.tensor([3.0, 6.0])).numpy(), [0.25, 0.75], atol=1e-6)
