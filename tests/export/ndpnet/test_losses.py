"""The losses against values computed by hand or by NumPy from the equations."""

import numpy as np
import pytest
import torch

from ndp_rt.export.models.ndpnet import losses
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch


def test_reconstruction_loss_is_the_mean_squared_error() -> None:
    rebuilt, good = torch.full((2, 3, 4, 4), 0.75), torch.full((2, 3, 4, 4), 0.25)
    assert losses.reconstruction_loss(rebuilt, good).item() == 0.25


def test_a_single_defective_pixel_survives_the_coarsest_level() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 17, 42] = 1.0
    small = losses.resize_mask(mask, (16, 16))
    assert small.sum().item() == 1.0
    assert small[0, 0, 4, 10].item() == 1.0


def test_defect_perception_loss_is_zero_when_the_change_is_the_mask() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[:, :, 2:4, 2:4] = 1.0
    good = [torch.rand(1, 5, 8, 8), torch.rand(1, 6, 4, 4)]
    defective = [good[0] + 3.0 * mask, good[1] + 2.0 * losses.resize_mask(mask, (4, 4))]
    assert_close(losses.defect_perception_loss(good, defective, mask).item(), 0.0, "loss", "float32")


def test_defect_perception_loss_is_the_share_of_wrong_cells_when_the_change_is_elsewhere() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[:, :, 0, 0] = 1.0
    good = [torch.zeros(1, 2, 4, 4)]
    changed = torch.zeros(1, 2, 4, 4)
    changed[:, :, 3, 3] = 7.0  # normalised to 1 where the mask is 0, and 0 where it is 1
    assert_close(losses.defect_perception_loss(good, [changed], mask).item(), 2.0 / 16.0, "loss", "float32")


def test_unchanged_features_of_a_good_image_cost_nothing() -> None:
    good = [torch.rand(2, 3, 4, 4)]
    assert losses.defect_perception_loss(good, good, torch.zeros(2, 1, 4, 4)).item() == 0.0


def test_repair_loss_is_the_mean_over_the_levels() -> None:
    repaired = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 4, 2, 2), 1.0), torch.zeros(1, 4, 1, 1)]
    good = [torch.full((1, 2, 4, 4), 1.0), torch.full((1, 4, 2, 2), 1.0), torch.ones(1, 4, 1, 1)]
    assert_close(losses.repair_loss(repaired, good).item(), (4.0 + 0.0 + 1.0) / 3.0, "loss", "float32")


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_agrees_with_its_definition(gamma: float, rng: np.random.Generator) -> None:
    logits, mask = rng.normal(0.0, 2.0, (2, 1, 5, 7)), (rng.random((2, 1, 5, 7)) < 0.3).astype(np.float64)
    probability = 1.0 / (1.0 + np.exp(-logits))
    of_truth = np.where(mask == 1.0, probability, 1.0 - probability)
    balance = np.where(mask == 1.0, 0.75, 0.25)
    expected = (-balance * (1.0 - of_truth) ** gamma * np.log(of_truth)).mean()
    actual = losses.focal_loss(torch.from_numpy(logits), torch.from_numpy(mask), gamma=gamma, balance=0.75)
    assert_close(actual.item(), expected, "loss", "float32")


def test_segmentation_loss_averages_the_three_levels() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    logits = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)]
    expected = 0.5 * 0.5**2 * np.log(2.0)  # balance 0.5, every probability 0.5
    actual = losses.segmentation_loss(logits, mask, gamma=2.0, balance=0.5)
    assert_close(actual.item(), expected, "loss", "float32")


def test_map_imitation_loss_is_the_divergence_of_each_pixels_outcomes(rng: np.random.Generator) -> None:
    own, wanted = rng.normal(0.0, 2.0, (2, 2, 1, 5, 7))
    q, p = 1.0 / (1.0 + np.exp(-own)), 1.0 / (1.0 + np.exp(-wanted))
    expected = (p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q))).mean()
    levels = [torch.from_numpy(x) for x in (own, np.zeros((2, 1, 3, 3)))]
    targets = [torch.from_numpy(x) for x in (wanted, np.zeros((2, 1, 3, 3)))]
    assert_close(losses.map_imitation_loss(levels, targets).item(), expected / 2.0, "loss", "float32")


def test_imitated_maps_cost_nothing_however_unsure_the_teacher_is() -> None:
    logits = [torch.linspace(-3.0, 3.0, 9).reshape(1, 1, 3, 3)]
    assert_close(losses.map_imitation_loss(logits, logits).item(), 0.0, "loss", "float32")


def test_feature_imitation_loss_is_the_share_that_is_not_explained(rng: np.random.Generator) -> None:
    wanted = torch.from_numpy(rng.normal(5.0, 3.0, (4, 2, 6, 6)))
    mean, deviation = wanted.mean((0, 2, 3), keepdim=True), wanted.std((0, 2, 3), keepdim=True, correction=0)
    normalised = (wanted - mean) / deviation
    assert losses.feature_imitation_loss([normalised], [wanted]).item() < 1e-6
    nothing = torch.zeros_like(wanted)
    assert losses.feature_imitation_loss([nothing], [wanted]).item() == pytest.approx(1.0, abs=1e-5)
    half = losses.feature_imitation_loss([nothing, normalised], [wanted, 100.0 * wanted]).item()
    assert half == pytest.approx(0.5, abs=1e-5)


def test_a_channel_of_the_teacher_that_is_always_zero_asks_for_zero() -> None:
    wanted = [torch.zeros(2, 3, 4, 4)]
    assert losses.feature_imitation_loss([torch.full((2, 3, 4, 4), 0.5)], wanted).item() == 0.25
