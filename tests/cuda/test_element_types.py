"""Element types: bfloat16 by hand against its definition, the others against NumPy."""

import numpy as np
import pytest

from ndp_rt.cuda.element_types import from_device_type, to_device_type
from ndp_rt.errors import InputError


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even() -> None:
    one, step = 1.0, 2.0**-7  # bfloat16 has 7 bits after the point
    values = np.float32([one, one + step / 2, one + 1.5 * step, one + 0.51 * step, -one, 0.0, -0.0, np.inf, -np.inf])
    back = from_device_type(to_device_type(values, "bfloat16"), "bfloat16")
    expected = [one, one, one + 2 * step, one + step, -one, 0.0, -0.0, np.inf, -np.inf]
    assert np.array_equal(back, np.float32(expected)) and np.signbit(back[6])


def test_bfloat16_keeps_nan(rng: np.random.Generator) -> None:
    payloads = rng.integers(1, 2**23, 1000, dtype=np.uint32)
    values = np.concatenate([0x7F800000 | payloads, 0xFF800000 | payloads]).view(np.float32)
    assert np.isnan(from_device_type(to_device_type(values, "bfloat16"), "bfloat16")).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_a_type_can_hold_comes_back_as_it_was(rng: np.random.Generator, dtype: str) -> None:
    values = from_device_type(to_device_type(rng.normal(size=(3, 7)), dtype), dtype)
    assert np.array_equal(from_device_type(to_device_type(values, dtype), dtype), values)


def test_other_types_are_refused() -> None:
    for convert in (to_device_type, from_device_type):
        with pytest.raises(InputError, match="int8"):
            convert(np.zeros(3, np.float32), "int8")
