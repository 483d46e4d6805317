"""MemSeg's memory: local features, and distances beside them."""

import numpy as np
import pytest
import torch

from ndp_rt.export.features.statistics import average
from ndp_rt.export.models.memseg.network import FEATURE_RANGE, Memory

pytestmark = pytest.mark.torch

CHANNELS = (2, 3, 4, 5)


def draw(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    sides = (32, 16, 8, 4)
    return [torch.randn(count, c, side, side, generator=generator) for c, side in zip(CHANNELS, sides, strict=True)]


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_local_mean_counts_what_lies_within_the_image(side: int) -> None:
    values = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(2))
    found, reach = average(values, side), side // 2
    for row, column in ((0, 0), (3, 1), (6, 3)):
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (row, column))
        expected = values[:, :, rows, columns].mean(dim=(2, 3))
        np.testing.assert_allclose(found[:, :, row, column].numpy(), expected.numpy(), atol=1e-6)


def test_crops_serve_and_give_the_channels_that_the_head_is_made_for() -> None:
    memory = Memory(CHANNELS, 64, 64)
    memory.fit(draw())
    crops = [level[:2, :, : level.shape[2] // 2, : level.shape[3] // 2] for level in draw()]
    inputs, (whitened, distances) = memory(crops)
    assert tuple(level.shape[1] for level in inputs) == memory.channels == (2, 5, 8, 7)
    assert whitened.shape == (2, 12, 4, 4)
    assert distances.shape == (2, 1, 4, 4)


def test_what_changes_all_over_an_image_is_left_to_the_distances() -> None:
    features = draw()
    memory = Memory(CHANNELS, 64, 64)
    memory.fit(features)
    moved = [level + 2.0 for level in features]
    before, after = memory(features)[0], memory(moved)[0]
    clipped = max(abs(limit) for limit in FEATURE_RANGE)
    for count, old, new in zip(CHANNELS, before, after, strict=True):
        assert old[:, :count].abs().max() < clipped
        np.testing.assert_allclose(new[:, :count].numpy(), old[:, :count].numpy(), atol=1e-4)
    assert (after[1][:, -2] > before[1][:, -2] + 0.5).float().mean() > 0.9  # the distance of the absolute features
