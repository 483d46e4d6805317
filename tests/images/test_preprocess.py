"""The one preprocessing: what it computes, which arrays it takes, and what it says of the others."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.images.preprocess import Preprocessor, preprocess
from ndp_rt.program.manifest import InputContract
from tests.tolerances import assert_close

CONTRACT = InputContract(height_px=64, width_px=128)


def run(image: np.ndarray, contract: InputContract = CONTRACT, channels: str = "rgb") -> np.ndarray:
    out = np.full((3, contract.height_px, contract.width_px), np.nan, np.float32)
    preprocess(image, contract, out, channels=channels)
    return out


def area_matrix(source: int, target: int) -> np.ndarray:
    """Return the [target, source] matrix of the mean over what each target pixel covers."""
    matrix = np.zeros((target, source))
    scale = source / target
    for row in range(target):
        low, high = row * scale, (row + 1) * scale
        for column in range(int(low), min(int(np.ceil(high)), source)):
            matrix[row, column] = (min(high, column + 1) - max(low, column)) / scale
    return matrix


def linear_matrix(source: int, target: int) -> np.ndarray:
    """Return the [target, source] matrix of linear interpolation with half-pixel centres."""
    matrix = np.zeros((target, source))
    for row in range(target):
        position = min(max((row + 0.5) * source / target - 0.5, 0), source - 1)
        low = int(position)
        matrix[row, low] += 1 - (position - low)
        matrix[row, min(low + 1, source - 1)] += position - low
    return matrix


def axis_matrix(source: int, target: int) -> np.ndarray:
    return area_matrix(source, target) if source >= target else linear_matrix(source, target)


@pytest.mark.parametrize("size", [(64, 128), (1, 1), (1, 300), (200, 1), (63, 129), (300, 40), (40, 300), (333, 555)])
@pytest.mark.parametrize("channel_count", [0, 1, 3])
def test_resizes_by_area_where_an_axis_shrinks_and_linearly_where_it_grows(
    rng: np.random.Generator, size: tuple[int, int], channel_count: int
) -> None:
    shape = (*size, channel_count) if channel_count else size
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    planes = image.reshape(*size, -1).transpose(2, 0, 1) / 255
    expected = axis_matrix(size[0], 64) @ planes @ axis_matrix(size[1], 128).T
    assert_close(run(image), np.broadcast_to(expected, (3, 64, 128)), "preprocess", "float32")


def test_divides_uint8_by_255_and_keeps_the_order_of_channels(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    assert np.array_equal(run(image), image.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert np.array_equal(run(image, channels="bgr"), run(image)[::-1])


def test_divides_uint16_by_the_white_level_and_clips(rng: np.random.Generator) -> None:
    contract = InputContract(height_px=64, width_px=128, white_level_16bit=4095)
    image = rng.integers(0, 8192, (64, 128), dtype=np.uint16)
    expected = np.minimum(image / 4095, 1)
    assert_close(run(image, contract), np.broadcast_to(expected, (3, 64, 128)), "preprocess", "float32")
    assert run(np.full((9, 9), 65535, np.uint16)).min() == 1


@pytest.mark.parametrize("size", [(64, 128), (100, 90)])
def test_layout_and_byte_order_do_not_matter(rng: np.random.Generator, size: tuple[int, int]) -> None:
    image = rng.integers(0, 65536, (*size, 3), dtype=np.uint16)
    expected = run(image)
    wide = np.zeros((size[0], 2 * size[1], 6), np.uint16)
    wide[:, ::2, ::2] = image
    for same in (
        np.asfortranarray(image),
        image.astype(">u2"),
        wide[:, ::2, ::2],
        image[::-1][::-1],
        np.ascontiguousarray(image[:, ::-1])[:, ::-1],
    ):
        assert np.array_equal(run(same), expected)


def test_an_array_too_large_to_resize_is_refused_before_any_copy() -> None:
    image = np.broadcast_to(np.uint8(7), (30000, 30000, 3))  # one byte of memory
    with pytest.raises(InputError, match=r"up to 32767 pixels a side and 268435456 in all, got 30000 x 30000"):
        run(image)


def test_writes_into_a_slice_of_a_batch(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (70, 70), dtype=np.uint8)
    batch = np.zeros((3, 3, 64, 128), np.float32)
    preprocess(image, CONTRACT, batch[1])
    assert np.array_equal(batch[1], run(image))
    assert not batch[0].any() and not batch[2].any()


def test_alpha_is_refused_unless_it_is_to_be_dropped(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (80, 80, 4), dtype=np.uint8)
    with pytest.raises(InputError, match=r"uint8 \[80, 80, 4\].*drop-alpha"):
        run(image)
    assert np.array_equal(run(image, channels="drop-alpha"), run(image[..., :3]))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((9, 9), np.nan, np.float32), r"float32 \[9, 9\].*NaN.*astype"),
        (np.zeros((9, 9), np.int32), "int32"),
        (np.zeros((9, 9), bool), "bool"),
        (np.zeros((0, 9), np.uint8), "no pixels"),
        (np.zeros((9, 0, 3), np.uint8), "no pixels"),
        (np.zeros((2, 9, 9, 3), np.uint8), "one image at a time"),
        (np.zeros(9, np.uint8), r"\[9\]"),
        (np.zeros((3, 9, 9), np.uint8), "Channels go last"),
        (np.zeros((9, 9, 2), np.uint8), r"\[9, 9, 2\]"),
        ([[1, 2], [3, 4]], "list"),
        ("picture.png", "read_image"),
        (None, "NoneType"),
    ],
)
def test_refuses_other_arrays_and_says_what_is_expected(image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "out", [np.zeros((3, 64, 64), np.float32), np.zeros((3, 64, 128)), np.zeros((64, 128, 3), np.float32), None]
)
def test_refuses_another_output(out: np.ndarray) -> None:
    with pytest.raises(InputError, match="out: expected float32"):
        preprocess(np.zeros((9, 9), np.uint8), CONTRACT, out)


def test_refuses_an_unknown_order_of_channels() -> None:
    with pytest.raises(InputError, match="channels: expected one of rgb, bgr, drop-alpha, got 'gbr'"):
        Preprocessor(CONTRACT, channels="gbr")


def test_scratch_is_kept_between_images_of_one_size_and_results_do_not_mix(rng: np.random.Generator) -> None:
    preprocessor, out = Preprocessor(CONTRACT), np.empty((3, 64, 128), np.float32)
    for size in ((90, 90), (90, 90), (30, 300), (90, 90, 3), (64, 128)):
        image = rng.integers(0, 256, size, dtype=np.uint8)
        preprocessor(image, out)
        assert np.array_equal(out, run(image))


def test_one_pixel_is_an_image() -> None:
    assert_close(run(np.full((1, 1), 51, np.uint8)), np.full((3, 64, 128), 0.2), "preprocess", "float32")
