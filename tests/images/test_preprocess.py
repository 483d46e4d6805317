"""The one preprocessing: what it computes, which arrays and files it takes, and what it says of the others."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.config import ImageLimits
from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.preprocess import Preprocessor, decode_image, preprocess, read_image
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


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.ppm"])
def test_reads_colour_files_as_rgb(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    image = rng.integers(0, 256, (17, 23, 3), dtype=np.uint8)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []
    assert cv2.imwrite(str(tmp_path / name), image[..., ::-1], options)
    assert np.array_equal(read_image(tmp_path / name), image)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reads_grey_files_of_8_and_16_bits(tmp_path: Path, rng: np.random.Generator, name: str, dtype: type) -> None:
    image = rng.integers(0, np.iinfo(dtype).max, (17, 23), dtype=dtype)
    read = read_image(str(write(tmp_path / name, image)))
    assert read.dtype == dtype and np.array_equal(read, image)


def test_reads_jpeg_and_drops_alpha(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (16, 20, 4), dtype=np.uint8)
    assert np.array_equal(read_image(write(tmp_path / "a.png", image)), image[..., 2::-1])
    assert read_image(write(tmp_path / "a.jpg", image[..., :3])).shape == (16, 20, 3)


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "one.png", np.full((1, 1), 51, np.uint8)))
    assert_close(run(image), np.full((3, 64, 128), 0.2), "preprocess", "float32")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp", "a.ppm"])
def test_files_cut_short_anywhere_are_errors(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    path = write(tmp_path / name, rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = path.read_bytes()
    for length in (1, 3, 10, 20, 40, len(data) // 4, len(data) // 2, len(data) - 20):
        with pytest.raises(ImageFileError, match=r"a\.\w+: "):
            decode_image(data[:length], name=name)


def test_progressive_jpeg_with_a_thumbnail_is_whole_only_to_its_own_end(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    assert cv2.imwrite(str(tmp_path / "a.jpg"), ramp, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    data = (tmp_path / "a.jpg").read_bytes()
    thumbnail = b"Exif\0\0" + data  # a whole image inside an APP1 segment
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode_image(whole, name="a.jpg").shape == (64, 64)
    with pytest.raises(ImageFileError, match="cut short"):
        decode_image(whole[:-2], name="a.jpg")


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"hello, world", "expected PNG, .* got a file"), (b"RIFF\0\0\0\0WAVE", "expected PNG")],
)
def test_files_that_are_no_images_are_errors(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match=words):
        read_image(tmp_path / "a.png")


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageFileError, match="Give the path"):
            read_image(path)


def test_a_huge_image_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.png", np.zeros((4, 4), np.uint8)).read_bytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    with pytest.raises(ImageFileError, match=r"up to 16384 pixels a side and \d+ in all, got 30000 x 30000"):
        decode_image(bytes(data), name="a.png")
    tight = ImageLimits(max_image_px=15)
    with pytest.raises(ImageFileError, match="up to 16384 pixels a side and 15 in all, got 4 x 4"):
        read_image(tmp_path / "a.png", limits=tight)


def test_float_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.zeros((5, 5), np.float32))
    with pytest.raises(ImageFileError, match="float32"):
        read_image(path)


def test_damaged_content_is_an_error_and_never_a_crash(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.pgm"):
        data = bytearray(write(tmp_path / name, rng.integers(0, 256, (30, 30), dtype=np.uint8)).read_bytes())
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                broken[place] = rng.integers(0, 256)
            try:
                image = decode_image(bytes(broken), name=name)
            except ImageFileError:
                continue
            assert image.dtype in (np.uint8, np.uint16) and image.size
