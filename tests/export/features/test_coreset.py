"""The coreset: few features that cover all."""

import pytest
import torch

from ndp_rt.export.features.coreset import choose_coreset

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("first", range(5))
def test_a_coreset_takes_the_farthest_from_all_that_it_has(first: int) -> None:
    places = torch.tensor([0.0, 1.0, 2.0, 10.0, 30.0])
    rows = torch.stack([places, 5.0 - places], dim=1)
    given, *others = choose_coreset(rows, 4, first)
    assert given == first
    left = {0, 1, 2, 3, 4} - {first}
    for number in others:  # by the definition, on the line
        chosen = [place for index, place in enumerate(places.tolist()) if index not in left]
        gaps = {index: min(abs(places[index].item() - place) for place in chosen) for index in left}
        assert gaps[number] == max(gaps.values())
        left.remove(number)
