"""Pictures as files, and the checksums that both sides make of what they give."""

from pathlib import Path

import numpy as np

from ndp_rt.bench.capi.host import read_score, sum_values, write_score
from ndp_rt.bench.capi.pictures import describe, make_frame, make_network_pictures
from ndp_rt.bundle.open import Bundle


def test_a_file_holds_the_raw_pixels_and_no_two_have_one_name(bundle: Bundle, tmp_path: Path) -> None:
    pictures = [*make_network_pictures(bundle), make_frame(bundle)]
    described = [describe(one, tmp_path) for one in pictures]
    assert len({path for path, *_ in described}) == len(pictures)
    for one, (path, width, height) in zip(pictures, described, strict=True):
        assert path.read_bytes() == one.tobytes() and one.shape == (height, width, 3)


def test_a_changed_value_and_two_that_changed_places_give_another_checksum(rng: np.random.Generator) -> None:
    values = rng.random((8, 9), np.float32)
    changed, swapped = values.copy(), values.copy()
    changed[7, 8] = np.nextafter(changed[7, 8], np.float32(2))
    swapped[0, 0], swapped[0, 1] = values[0, 1], values[0, 0]
    assert len({sum_values(one) for one in (values, changed, swapped)}) == 3
    assert sum_values(values) == sum_values(np.ascontiguousarray(values.T).T)
    assert sum_values(np.uint8([[1, 2], [3, 255]])) == f"{1 + 2 * 3 + 3 * 5 + 255 * 7:016x}"


def test_a_score_keeps_its_bits() -> None:
    for score in (0.0, 0.1, np.nextafter(0.5, 1.0)):
        assert read_score({"score": write_score(float(score))}) == score
