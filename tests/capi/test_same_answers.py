"""What C gets is what Python gets, bit for bit: scores, maps, decisions, defects, in every pixel format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt import ImportSettings, Inspector, import_onnx, read_image
from tests.bricks import BRICK_IMAGES, BRICKS
from tests.capi.library import FORMATS, Library
from tests.importing.models import ANOMALIB_OUTPUTS, NORMALISED, RAW, write_model

DEFECTS = 200


def to_rgb(array: NDArray[Any], pixel_format: str) -> NDArray[Any]:
    """Return what the Python inspector is given for an array in a pixel format."""
    if pixel_format.startswith("GREY"):
        return array
    return array[..., :3] if pixel_format.startswith("RGB") else np.ascontiguousarray(array[..., 2::-1])


def inspect(library: Library, handle: Any, array: NDArray[Any], pixel_format: str) -> dict[str, Any]:
    """Inspect through C with every buffer, and return what came."""
    size = array.shape[:2]
    anomaly_map, mask = np.full(size, -1, np.float32), np.full(size, 7, np.uint8)
    defects = library.ffi.new("ndp_rt_defect[]", DEFECTS)
    result = library.make_result(anomaly_map, mask, defects)
    image = library.make_image(array, pixel_format)
    status = library.lib.ndp_rt_inspector_inspect(handle, image, result)
    assert status == 0, library.last_error
    return {"result": result, "map": anomaly_map, "mask": mask, "defects": defects}


def check_equal(found: dict[str, Any], expected: Any) -> None:
    result = found["result"]
    assert result.score == expected.score and result.threshold == expected.threshold
    assert bool(result.is_defect) is expected.is_defect
    assert np.array_equal(found["map"], expected.anomaly_map)
    assert np.array_equal(found["mask"], np.where(expected.anomaly_map >= expected.threshold, 255, 0))
    assert result.defect_count == len(expected.defects)
    for index, other in enumerate(expected.defects):
        one = found["defects"][index]
        box = (one.x_px, one.y_px, one.width_px, one.height_px, one.area_px, one.peak)
        assert box == (other.x_px, other.y_px, other.width_px, other.height_px, other.area_px, other.peak)
        for name in ("x_mm", "y_mm", "width_mm", "height_mm", "area_mm2"):
            in_c, in_python = getattr(one, name), getattr(other, name)
            assert np.isnan(in_c) if in_python is None else in_c == in_python


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def both(request: pytest.FixtureRequest, library: Library, tiny_bundle: Path) -> Iterator[tuple[Any, Inspector]]:
    """The same bundle opened from C and from Python, at a threshold that some images reach."""
    options = {"backend": request.param, "threads": 1, "threshold": 0.55, "mm_per_pixel": 0.25}
    handle = library.open(tiny_bundle, flags=library.lib.NDP_RT_OPEN_THRESHOLD, **options)
    with Inspector.open(tiny_bundle, **options) as opened:
        yield handle, opened
    library.lib.ndp_rt_inspector_close(handle)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(64, 64), (1, 1), (70, 91), (200, 33)])
def test_every_pixel_format_gives_what_python_gives(
    library: Library,
    both: tuple[Any, Inspector],
    rng: np.random.Generator,
    pixel_format: str,
    size: tuple[int, int],
) -> None:
    channel_count, dtype = FORMATS[pixel_format]
    shape = size if channel_count == 1 else (*size, channel_count)
    array = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    check_equal(inspect(library, both[0], array, pixel_format), both[1].inspect(to_rgb(array, pixel_format)))


def test_golden_vectors_give_what_python_gives(library: Library, both: tuple[Any, Inspector]) -> None:
    for image in both[1].bundle.golden().image:
        array = np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8, order="C")
        check_equal(inspect(library, both[0], array, "RGB8"), both[1].inspect(array))


def test_rows_with_padding_give_what_dense_ones_give(
    library: Library, both: tuple[Any, Inspector], rng: np.random.Generator
) -> None:
    padded = rng.integers(0, 255, (50, 80, 3), dtype=np.uint8)
    view = padded[:, :61]
    wide_map, wide_mask = np.full((50, 70), -1, np.float32), np.full((50, 90), 7, np.uint8)
    result = library.make_result(wide_map[:, :61], wide_mask[:, :61])
    assert library.lib.ndp_rt_inspector_inspect(both[0], library.make_image(view, "RGB8"), result) == 0
    expected = both[1].inspect(view.copy())
    assert result.score == expected.score
    assert np.array_equal(wide_map[:, :61], expected.anomaly_map) and (wide_map[:, 61:] == -1).all()
    assert (wide_mask[:, 61:] == 7).all() and set(np.unique(wide_mask[:, :61])) <= {0, 255}


@pytest.mark.parametrize("wanted", ["nothing", "mask"])
def test_buffers_that_are_not_given_change_nothing(
    library: Library, both: tuple[Any, Inspector], rng: np.random.Generator, wanted: str
) -> None:
    array = rng.integers(0, 255, (40, 50), dtype=np.uint8)
    mask = np.full((40, 50), 7, np.uint8) if wanted == "mask" else None
    result = library.make_result(None, mask)
    assert library.lib.ndp_rt_inspector_inspect(both[0], library.make_image(array, "GREY8"), result) == 0
    expected = both[1].inspect(array)
    assert (result.score, result.defect_count) == (expected.score, len(expected.defects))
    if mask is not None:
        assert np.array_equal(mask, np.where(expected.anomaly_map >= 0.55, 255, 0))


def test_batches_and_large_images_give_what_python_gives(
    library: Library, both: tuple[Any, Inspector], rng: np.random.Generator
) -> None:
    arrays = [rng.integers(0, 255, (30 + i, 40, 3), dtype=np.uint8) for i in range(5)]
    maps = [np.empty(array.shape[:2], np.float32) for array in arrays]
    images = library.ffi.new("ndp_rt_image[]", [library.make_image(array, "BGR8")[0] for array in arrays])
    results = library.ffi.new("ndp_rt_result[]", [library.make_result(one)[0] for one in maps])
    assert library.lib.ndp_rt_inspector_inspect_batch(both[0], images, len(arrays), results) == 0
    for result, found, expected in zip(
        results, maps, both[1].inspect_batch([array[..., ::-1] for array in arrays]), strict=True
    ):
        assert result.score == expected.score and np.array_equal(found, expected.anomaly_map)
    large, whole = rng.integers(0, 255, (150, 200), dtype=np.uint8), np.empty((150, 200), np.float32)
    result = library.make_result(whole)
    assert library.lib.ndp_rt_inspector_inspect_large(both[0], library.make_image(large, "GREY8"), 16, result) == 0
    expected = both[1].inspect_large(large, overlap_px=16)
    assert result.score == expected.score and np.array_equal(whole, expected.anomaly_map)


def test_photographs_give_what_python_gives(library: Library) -> None:
    handle = library.open(BRICKS)
    with Inspector.open(BRICKS) as opened:
        for path in sorted(BRICK_IMAGES.glob("*.png")):
            array = read_image(path)
            check_equal(inspect(library, handle, array, "GREY8" if array.ndim == 2 else "RGB8"), opened.inspect(array))
    library.lib.ndp_rt_inspector_close(handle)


def test_buffers_that_come_back_are_read_anew(
    library: Library, both: tuple[Any, Inspector], rng: np.random.Generator
) -> None:
    array, found = np.zeros((50, 60, 3), np.uint8), np.empty((50, 60), np.float32)
    image, result = library.make_image(array, "RGB8"), library.make_result(found)
    for pixel_format in ("RGB8", "BGR8", "RGB8"):
        image.pixel_format = getattr(library.lib, f"NDP_RT_PIXEL_{pixel_format}")
        for _ in range(2):
            array[:] = rng.integers(0, 255, array.shape, dtype=np.uint8)
            assert library.lib.ndp_rt_inspector_inspect(both[0], image, result) == 0
            expected = both[1].inspect(to_rgb(array, pixel_format))
            assert result.score == expected.score and np.array_equal(found, expected.anomaly_map)


def test_no_more_than_a_ring_of_buffers_is_kept(library: Library, both: tuple[Any, Inspector]) -> None:
    from ndp_rt.capi import buffers  # is there once the library has started

    arrays = [np.zeros((4, 4), np.uint8) for _ in range(2 * buffers.MAX_KEPT_FRAMES)]
    for array in arrays:
        image = library.make_image(array, "GREY8")
        assert library.lib.ndp_rt_inspector_inspect(both[0], image, library.make_result()) == 0
    assert len(buffers._kept) <= buffers.MAX_KEPT_FRAMES


def test_another_white_level_reads_12_bits_as_8_and_as_python_does(
    library: Library, tiny_bundle: Path, rng: np.random.Generator
) -> None:
    deep = rng.integers(0, 4096, (70, 91), dtype=np.uint16)
    options = {"threads": 1, "threshold": 0.55}
    flags = library.lib.NDP_RT_OPEN_THRESHOLD
    handle = library.open(tiny_bundle, flags=flags, white_level_16bit=4095, **options)
    with Inspector.open(tiny_bundle, white_level=4095, **options) as opened:
        expected = opened.inspect(deep)
        assert opened.bundle.manifest.input.white_level_16bit == 4095
        check_equal(inspect(library, handle, deep, "GREY16"), expected)
    library.lib.ndp_rt_inspector_close(handle)
    with Inspector.open(tiny_bundle, **options) as plain:
        as_8_bits = plain.inspect(np.rint(deep / 4095 * 255).astype(np.uint8))
        assert np.allclose(expected.anomaly_map, as_8_bits.anomaly_map, atol=0.02)
        assert not np.allclose(expected.anomaly_map, plain.inspect(deep).anomaly_map, atol=0.02)


def test_an_ignore_mask_and_a_smallest_area_leave_out_what_python_does(
    library: Library, tiny_bundle: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    image = rng.integers(0, 256, (100, 130), dtype=np.uint8)
    ignored = np.zeros(image.shape, np.uint8)
    ignored[:, 70:] = 255
    path = tmp_path / "mask.png"
    assert cv2.imwrite(str(path), ignored)
    options = {"threads": 1, "threshold": 0.5}
    text = library.ffi.new("char[]", str(path).encode())
    flags = library.lib.NDP_RT_OPEN_THRESHOLD
    scores = []
    for area in (1, 20, 60):
        handle = library.open(tiny_bundle, flags=flags, ignore_mask=text, smallest_area_px=area, **options)
        with Inspector.open(tiny_bundle, ignore_mask=path, smallest_area_px=area, **options) as opened:
            expected = opened.inspect(image)
        found = inspect(library, handle, image, "GREY8")
        assert found["result"].score == expected.score
        assert found["result"].defect_count == len(expected.defects)
        assert np.array_equal(found["map"], expected.anomaly_map) and not found["map"][:, 70:].any()
        assert np.array_equal(found["mask"], np.where(expected.make_mask(), 255, 0))
        scores.append(expected.score)

        wide = library.make_image(np.zeros((100, 131), np.uint8), "GREY8")
        status = library.lib.ndp_rt_inspector_inspect(handle, wide, library.make_result())
        assert library.name(status) == "INPUT"
        assert "expected 100 x 130 pixels, as the ignore mask has, got 100 x 131" in library.last_error
        library.lib.ndp_rt_inspector_close(handle)
    assert scores[0] > scores[1] > scores[2]


SMALL = RAW + "  anomaly_map = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (raw)\n"
OWN = SMALL + "  score = ReduceMean <axes = [1, 2, 3], keepdims = 0> (raw)\n"
IMPORTED = {
    "anomalib's": (NORMALISED, ANOMALIB_OUTPUTS, "anomalib"),
    "a small map and a score": (OWN, "float[N,1,8,8] anomaly_map, float[N] score", None),
    "a score alone": (OWN, "float[N] score", None),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_model_of_another_program_gives_what_python_gives(
    library: Library, tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    body, outputs, source = IMPORTED[name]
    path = import_onnx(
        write_model(tmp_path / "m.onnx", body, outputs), tmp_path / "m.ndp", ImportSettings(source=source)
    ).bundle.path
    options: dict[str, Any] = {"threads": 1, "threshold": 2.0}
    handle = library.open(path, flags=library.lib.NDP_RT_OPEN_THRESHOLD, **options)
    try:
        with Inspector.open(path, **options) as opened:
            for size in ((32, 32), (70, 91)):
                array = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                check_equal(inspect(library, handle, array, "RGB8"), opened.inspect(array))
    finally:
        library.lib.ndp_rt_inspector_close(handle)
