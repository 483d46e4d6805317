"""float16 and bfloat16 in NumPy: rounding to the nearest, ties to even, and back without a change."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1.0 + 2**-8, 0x3F80),  # half way: to the even one, below
        (1.0 + 3 * 2**-8, 0x3F82),  # half way: to the even one, above
        (1.0 + 2**-8 + 2**-20, 0x3F81),
        (-(2.0 - 2**-9), 0xC000),  # carries into the exponent
        (3.4e38, 0x7F80),  # past the largest: infinity
        (np.inf, 0x7F80),
        (2.0**-133, 0x0001),  # the smallest of all
    ],
)
def test_bfloat16_is_the_nearest_with_ties_to_even(value: float, bits: int) -> None:
    assert narrow(np.float32([value]), "bfloat16").tolist() == [bits]


def test_no_number_stays_none() -> None:
    for dtype in ("float16", "bfloat16"):
        # All payloads: one whose bits are in the lower half alone must not become an infinity.
        values = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001], np.uint32).view(np.float32)
        assert np.isnan(widen(narrow(values, dtype), dtype)).all()


@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.0), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_a_round_trip_costs_half_a_last_place(dtype: str, share: float, rng: np.random.Generator) -> None:
    values = rng.normal(0.0, 10.0, (3, 5, 7)).astype(np.float32)
    rounded = widen(narrow(values, dtype), dtype)
    assert rounded.shape == values.shape and rounded.dtype == np.float32
    assert (np.abs(rounded - values) <= share * np.abs(values)).all()
    assert share == 0.0 or (rounded != values).any()
    assert (narrow(rounded, dtype) == narrow(values, dtype)).all()


def test_every_bfloat16_survives() -> None:
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    numbers = bits[np.isfinite(widen(bits, "bfloat16"))]
    assert (narrow(widen(numbers, "bfloat16"), "bfloat16") == numbers).all()


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match="element type: expected .* got 'int8'"):
        narrow(np.zeros(1, np.float32), "int8")
    with pytest.raises(InputError, match="array of bfloat16: expected uint16, got float16"):
        widen(np.zeros(1, np.float16), "bfloat16")
