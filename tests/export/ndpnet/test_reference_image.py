"""The reference rule: the good image nearest the mean of the others' features."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ndp_rt.export.data.images import GoodImages
from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.models.ndpnet.training import describe_images, nearest_to_others
from ndp_rt.program.manifest import InputContract

pytestmark = pytest.mark.torch


def test_the_nearest_to_the_others_mean_is_chosen() -> None:
    assert nearest_to_others(np.array([[0.0, 1.0], [4.0, 1.2], [5.0, 1.1], [11.0, 1.3]])) == 2


def test_each_image_is_compared_with_the_others_alone(rng: np.random.Generator) -> None:
    descriptors = rng.normal(0.0, 1.0, (7, 5)) * [1.0, 100.0, 0.01, 1.0, 1.0]
    scaled = descriptors / descriptors.std(axis=0)
    distances = [np.square(row - np.delete(scaled, i, axis=0).mean(axis=0)).sum() for i, row in enumerate(scaled)]
    assert nearest_to_others(descriptors) == int(np.argmin(distances))


def test_a_large_scale_does_not_decide() -> None:
    descriptors = np.array([[0.0, 1000.0], [1.0, 1000.0], [2.0, 1000.0], [1.1, 1000.0]])
    assert nearest_to_others(descriptors) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_of_equal_images_the_first_is_chosen(count: int) -> None:
    assert nearest_to_others(np.ones((count, 4))) == 0


def test_descriptors_are_channel_means_of_levels_3_to_5(tmp_path: Path) -> None:
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((64, 64), 60 + 90 * index, np.uint8))
    images = GoodImages(sorted(tmp_path.iterdir()), InputContract(height_px=64, width_px=64))
    model = NDPNet(4, 64, 64)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    descriptors = describe_images(model, images)
    assert descriptors.shape == (2, 16 + 32 + 32)
    assert model.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not np.array_equal(descriptors[0], descriptors[1])
