"""What a resize takes from a surface's structure, and that it is said."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.export.data.resize import choose_size, describe_loss, measure_losses
from ndp_rt.program.manifest import InputContract

CONTRACT = InputContract(height_px=64, width_px=64)


def stripes(period_px: float, side_px: int = 256, depth: float = 0.3) -> np.ndarray:
    columns = np.arange(side_px)
    row = 0.5 + depth * np.sin(2.0 * np.pi * columns / period_px)
    return np.tile(row, (side_px, 1)).astype(np.float32)


@pytest.mark.parametrize(("period_px", "least", "most"), [(3.0, 0.9, 1.1), (48.0, 0.0, 0.05)])
def test_fine_stripes_are_lost_and_coarse_ones_stay(period_px: float, least: float, most: float) -> None:
    ((share, _),) = measure_losses(stripes(period_px), [CONTRACT])
    assert least <= share <= most


def test_an_image_that_is_not_made_smaller_loses_nothing() -> None:
    assert measure_losses(stripes(3.0, 64), [CONTRACT]) == [(0.0, 0.0)]
    assert measure_losses(stripes(3.0, 40), [CONTRACT]) == [(0.0, 0.0)]
    assert measure_losses(stripes(3.0, 64), [InputContract(height_px=32, width_px=32), CONTRACT])[1] == (0.0, 0.0)


def write(folder: Path, image: np.ndarray, levels: int) -> list[Path]:
    path = folder / "0.png"
    cv2.imwrite(str(path), (image * levels).astype(np.uint8 if levels == 255 else np.uint16))
    return [path]


@pytest.mark.parametrize("levels", [255, 65535])
def test_a_lost_weave_is_said(tmp_path: Path, levels: int) -> None:
    note = describe_loss(write(tmp_path, stripes(3.0), levels), CONTRACT)
    assert note is not None
    assert "from 256 x 256 to 64 x 64 px takes" in note
    assert "less than 8 px" in note


@pytest.mark.parametrize("image", [stripes(48.0), stripes(3.0, depth=0.01), np.full((256, 256), 0.5, np.float32)])
def test_coarse_and_faint_structure_need_no_sentence(tmp_path: Path, image: np.ndarray) -> None:
    assert describe_loss(write(tmp_path, image, 255), CONTRACT) is None


def sheet(period_px: float, height_px: int, width_px: int) -> np.ndarray:
    return stripes(period_px, width_px)[:1].repeat(height_px, axis=0)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (sheet(48.0, 256, 256), (64, 64)),  # coarse
        (sheet(3.0, 64, 64), (64, 64)),  # no larger than the input
        (sheet(3.0, 40, 50), (64, 64)),
        (sheet(9.0, 256, 256), (96, 96)),  # at 64 px a period has 2.3 pixels, at 96 3.4
        (sheet(3.0, 150, 100), (160, 112)),  # as large as the images: nothing else keeps it
        (sheet(3.0, 600, 600), (256, 256)),  # the largest there is, though it does not keep it
        (sheet(8.0, 200, 400), (96, 192)),  # the images' aspect
    ],
)
def test_the_smallest_input_that_keeps_the_structure_is_chosen(
    tmp_path: Path, image: np.ndarray, size: tuple[int, int]
) -> None:
    height, width, why = choose_size(write(tmp_path, image, 255), CONTRACT, 16)
    assert (height, width) == size
    assert why.startswith(f"input of {height} x {width} px: ")


def test_a_larger_input_says_why_and_what_it_costs(tmp_path: Path) -> None:
    *_, why = choose_size(write(tmp_path, stripes(6.0), 255), CONTRACT, 32)
    assert "at 64 x 64 the resize from 256 x 256 would take 9" in why
    assert "about 4.0 times as long" in why
