"""Which value of 16-bit images is white, and which images lie outside of what training saw."""

import numpy as np
import pytest

from ndp_rt.images.white_level import (
    AS_TRAINED,
    BRIGHTER,
    DARKER,
    FAINT,
    Values,
    describe_range,
    find_white_level,
    judge_brightness,
    measure_values,
)
from ndp_rt.program.manifest import BundleManifest, TrainingRange
from tests.images.encodings import draw_surface


@pytest.mark.parametrize(
    ("largest", "level"), [(200, 255), (1000, 1023), (3437, 4095), (4095, 4095), (4096, 16383), (60000, 65535)]
)
def test_the_lowest_level_that_holds_all_values_is_found(largest: int, level: int) -> None:
    values = [Values(bits=16, dark=1, bright=2, largest=one) for one in (largest // 2, largest)]
    found, why = find_white_level(values)
    assert found == level
    assert why == f"white level {level}: the largest value of 2 16-bit image(s) is {largest}"


def test_bits_that_the_files_note_decide_unless_a_value_is_larger() -> None:
    noted = Values(bits=16, dark=1, bright=2, largest=900, significant_bits=12)
    assert find_white_level([noted, noted]) == (4095, "white level 4095: the files say 12 bits")
    larger = Values(bits=16, dark=1, bright=2, largest=60000, significant_bits=12)
    assert find_white_level([noted, larger])[0] == 65535
    assert find_white_level([Values(bits=8, dark=0, bright=200, largest=255)]) == (65535, "")
    assert find_white_level([]) == (65535, "")


def test_an_image_is_told_that_lies_outside_of_what_training_saw(rng: np.random.Generator) -> None:
    trained = [measure_values(draw_surface(rng, 128, 128, bits=12)) for _ in range(8)]
    found = describe_range(trained, 4095)
    assert (
        found is not None and 0 <= found.darkest <= found.darkest_most < found.brightest_least <= found.brightest <= 1
    )
    image = draw_surface(rng, 128, 128, bits=12)
    as_8_bits = np.rint(image / 4095 * 255).astype(np.uint8)
    assert judge_brightness(measure_values(image), 4095, found) == AS_TRAINED
    assert judge_brightness(measure_values(as_8_bits), 4095, found) == AS_TRAINED
    assert judge_brightness(measure_values((image * 0.7).astype(np.uint16)), 4095, found) == AS_TRAINED
    assert judge_brightness(measure_values(image), 65535, found) == DARKER
    assert judge_brightness(measure_values(image >> 2), 4095, found) == DARKER
    assert judge_brightness(measure_values(image << 4), 4095, found) == BRIGHTER
    assert judge_brightness(measure_values(image), 65535, None) == FAINT
    assert judge_brightness(measure_values(image), 4095, None) is None
    assert judge_brightness(measure_values(np.zeros((9, 9), np.uint8)), 65535, None) is None


def test_a_manifest_carries_the_range_and_may_lack_it() -> None:
    hints = BundleManifest.__dataclass_fields__
    assert hints["training_range"].metadata["is_optional"] and hints["training_images"].metadata["is_optional"]
    one = TrainingRange(darkest=0.1, darkest_most=0.2, brightest_least=0.6, brightest=0.9)
    assert TrainingRange.from_json(one.to_json()) == one
    assert describe_range([], 4095) is None
