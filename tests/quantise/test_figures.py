"""What counts as too much lost."""

import dataclasses

import pytest

from ndp_rt.quantise.figures import Figures, list_exceeded

BASE = Figures(
    image_rocauc=0.95,
    pixel_rocauc=0.96,
    aupro=0.9,
    flip_count=0,
    image_count=1000,
    map_max_abs_difference=0.0,
    score_max_abs_difference=0.0,
)


@pytest.mark.parametrize("name", ["image_rocauc", "pixel_rocauc", "aupro"])
def test_each_area_may_drop_by_the_limit_and_no_more(name: str) -> None:
    near, far = (dataclasses.replace(BASE, **{name: getattr(BASE, name) - drop}) for drop in (0.0029, 0.0031))
    assert list_exceeded(near, BASE, 0.003) == []
    assert list_exceeded(far, BASE, 0.003) == [f"{name} drops by 0.0031"]


def test_the_same_share_of_decisions_may_change_and_always_one() -> None:
    for count, images, is_accepted in ((3, 1000, True), (4, 1000, False), (1, 20, True), (2, 20, False)):
        found = dataclasses.replace(BASE, flip_count=count, image_count=images)
        assert (list_exceeded(found, BASE, 0.003) == []) == is_accepted
    # 0.29 x 100 is 28.999999999999996 in floating point.
    assert list_exceeded(dataclasses.replace(BASE, flip_count=29, image_count=100), BASE, 0.29) == []
    assert list_exceeded(dataclasses.replace(BASE, flip_count=4), BASE, 0.003) == ["4 of 1000 decisions change"]


def test_better_is_never_too_much() -> None:
    better = dataclasses.replace(BASE, image_rocauc=1.0, pixel_rocauc=1.0, aupro=1.0)
    assert list_exceeded(better, BASE, 0.0) == []
