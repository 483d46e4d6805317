"""The tolerance table: what it refuses."""

import numpy as np
import pytest

from tests.tolerances import TOLERANCES, assert_close, find_tolerance


def test_a_missing_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="no tolerance for"):
        find_tolerance("map", "int3")


def test_every_entry_has_a_reason() -> None:
    assert all(len(entry.reason) > 20 for entry in TOLERANCES.values())


def test_a_pass_prints_the_share_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert_close(np.float32(0.50005), 0.5, "map", "float32")
    assert "map float32: 5" in capsys.readouterr().out


@pytest.mark.parametrize("actual", [[0.5, 0.6], [0.5, np.nan], [0.5, np.inf], [0.5], [[0.5, 0.5]]])
def test_fails_on_another_value_or_shape(actual: list[float]) -> None:
    with pytest.raises(AssertionError):
        assert_close(actual, [0.5, 0.5], "map", "float32")


def test_fails_when_there_is_nothing_to_compare() -> None:
    with pytest.raises(AssertionError, match="empty"):
        assert_close([], [], "map", "float32")


def test_fails_when_the_expected_values_are_not_finite() -> None:
    with pytest.raises(AssertionError, match="finite"):
        assert_close([np.nan], [np.nan], "map", "float32")
