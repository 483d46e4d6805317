"""What counts as too much lost."""

import pytest

from ndp_rt.quantise.figures import Drop, Figures, list_exceeded


def make_figures(**drops: Drop) -> Figures:
    return Figures(
        areas={"image_rocauc": 0.95},
        drops=drops,
        flip_count=0,
        image_count=1000,
        map_max_abs_difference=0.0,
        score_max_abs_difference=0.0,
    )


def test_a_drop_counts_beyond_two_standard_errors() -> None:
    for value, error, is_accepted in (
        (0.0029, 0.0, True),
        (0.0031, 0.0, False),
        (0.0081, 0.003, True),
        (0.0091, 0.003, False),
        (-0.5, 0.1, True),
    ):
        figures = make_figures(image_rocauc=Drop(value=0.0, error=0.0), aupro=Drop(value=value, error=error))
        assert (list_exceeded(figures, 0.003) == []) == is_accepted, (value, error)
    words = list_exceeded(make_figures(decisions=Drop(value=0.0125, error=0.002)), 0.003)
    assert words == ["decisions drops by +0.0125 ± 0.0040"]


@pytest.mark.parametrize(("error", "is_sure"), [(0.0015, True), (0.0016, False)])
def test_a_drop_is_sure_where_chance_is_below_the_limit(error: float, is_sure: bool) -> None:
    assert Drop(value=0.5, error=error).is_sure(0.003) == is_sure
