"""calibration.safetensors: the good images that a bundle carries."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.bundle.open import CALIBRATION_FILE
from ndp_rt.errors import BundleError
from tests.tiny_bundle import make_tiny_bundle


def carry(folder: Path, **tensors: NDArray[np.generic]) -> Bundle:
    """Return a tiny bundle that carries these tensors."""
    plain = make_tiny_bundle(folder / "plain.ndp")
    files: dict[str, bytes | Path] = {name: plain.path / name for name in plain.manifest.files}
    files[CALIBRATION_FILE] = save(tensors)
    return write_bundle(folder / "tiny.ndp", manifest_without_files=plain.manifest, files=files)


@pytest.mark.parametrize("channel_count", [1, 3])
def test_images_have_three_channels_and_grey_ones_three_that_are_equal(
    tmp_path: Path, rng: np.random.Generator, channel_count: int
) -> None:
    good = rng.integers(0, 256, (2, channel_count, 64, 64), dtype=np.uint8)
    found = carry(tmp_path, good=good).calibration_images()
    assert found is not None and found.shape == (2, 3, 64, 64)
    assert np.array_equal(found, np.repeat(good, 3 // channel_count, axis=1))


def test_a_bundle_without_them_says_so(tmp_path: Path) -> None:
    assert make_tiny_bundle(tmp_path / "tiny.ndp").calibration_images() is None


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 2, 64, 64), "u1"),
        ((0, 3, 64, 64), "u1"),
        ((2, 3, 64, 32), "u1"),
        ((3, 64, 64), "u1"),
        ((2, 3, 64, 64), "f4"),
    ],
)
def test_tensors_of_another_kind_are_refused(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(BundleError, match=r"'good' to be uint8 \[k, 1 or 3, 64, 64\], k from 1, got .* Export"):
        carry(tmp_path, good=np.zeros(shape, dtype)).calibration_images()


def test_a_file_without_the_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="lacks the tensors good"):
        carry(tmp_path, bad=np.zeros((1, 3, 64, 64), np.uint8)).calibration_images()


def test_their_groups_are_read_and_absent_in_older_bundles(tmp_path: Path) -> None:
    good = np.zeros((3, 1, 64, 64), np.uint8)
    assert carry(tmp_path / "a", good=good, group=np.array([0, 0, 1], np.int32)).calibration_groups() == [0, 0, 1]
    assert carry(tmp_path / "b", good=good, group=np.array([0, 1], np.int32)).calibration_groups() is None
    assert carry(tmp_path / "c", good=good).calibration_groups() is None
    assert make_tiny_bundle(tmp_path / "tiny.ndp").calibration_groups() is None
