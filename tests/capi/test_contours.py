"""Outlines of defects in C: Python's, in the caller's room, and programs that were compiled without them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt import Inspector, Result
from tests.capi.library import Library

DEFECTS, POINTS = 64, 4096
OLD_DEFECT_BYTES, OLD_RESULT_BYTES = 72, 152  # of ABI 1.0 to 1.2


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """An image with several defects of several points each."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (150, 170), dtype=np.uint8)


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, image: NDArray[np.uint8]) -> dict[str, Any]:
    """Of `open`: with a threshold that several parts of the image reach."""
    with Inspector.open(tiny_bundle, threads=1) as inspector:
        anomaly_map = inspector.inspect(image).anomaly_map
    return {"threads": 1, "threshold": float(np.quantile(anomaly_map, 0.9))}


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path, image: NDArray[np.uint8], options: dict[str, Any]) -> Result:
    with Inspector.open(tiny_bundle, contours=True, **options) as inspector:
        result = inspector.inspect(image)
    assert len(result.defects) > 2 and all(one.contour is not None for one in result.defects)
    return result


@pytest.fixture(scope="module")
def handle(library: Library, tiny_bundle: Path, options: dict[str, Any]) -> Iterator[Any]:
    flags = library.lib.NDP_RT_OPEN_THRESHOLD | library.lib.NDP_RT_OPEN_CONTOURS
    opened = library.open(tiny_bundle, flags=flags, **options)
    yield opened
    library.lib.ndp_rt_inspector_close(opened)


def list_outlines(defects: Any, points: Any, count: int) -> list[list[tuple[int, int]]]:
    """Return the outlines of the first defects."""
    return [
        [(points[i].x_px, points[i].y_px) for i in range(one.first_point, one.first_point + one.point_count)]
        for one in (defects[index] for index in range(count))
    ]


def list_expected(result: Result) -> list[list[tuple[int, int]]]:
    return [[(int(x), int(y)) for x, y in one.contour] for one in result.defects if one.contour is not None]


@pytest.mark.parametrize("function", ["inspect", "inspect_batch", "inspect_large", "submit"])
def test_outlines_are_pythons(
    library: Library,
    handle: Any,
    tiny_bundle: Path,
    image: NDArray[np.uint8],
    options: dict[str, Any],
    expected: Result,
    function: str,
) -> None:
    defects, points = library.ffi.new("ndp_rt_defect[]", DEFECTS), library.ffi.new("ndp_rt_point[]", POINTS)
    frame, result = library.make_image(image, "GREY8"), library.make_result(None, None, defects, points)
    if function == "inspect_batch":
        status = library.lib.ndp_rt_inspector_inspect_batch(handle, frame, 1, result)
    elif function == "inspect_large":
        status = library.lib.ndp_rt_inspector_inspect_large(handle, frame, 8, result)
        with Inspector.open(tiny_bundle, contours=True, **options) as inspector:
            expected = inspector.inspect_large(image, overlap_px=8)
    elif function == "submit":
        job = library.ffi.new("ndp_rt_job **")
        submitted = library.lib.ndp_rt_inspector_submit(handle, frame, result, library.ffi.NULL, library.ffi.NULL, job)
        assert submitted == 0, library.last_error
        status = library.lib.ndp_rt_job_wait(job[0], -1)
    else:
        status = library.lib.ndp_rt_inspector_inspect(handle, frame, result)
    assert status == 0, library.last_error
    outlines = list_expected(expected)
    assert result.defect_count == len(outlines)
    assert list_outlines(defects, points, result.defect_count) == outlines
    assert result.point_count == sum(map(len, outlines))


def test_outlines_are_whole_or_left_out_where_there_is_too_little_room(
    library: Library, handle: Any, image: NDArray[np.uint8], expected: Result
) -> None:
    outlines = list_expected(expected)
    count = sum(map(len, outlines))
    defects, points = library.ffi.new("ndp_rt_defect[]", DEFECTS), library.ffi.new("ndp_rt_point[]", count)
    for room in (0, 1, len(outlines[0]), len(outlines[0]) + 1, count - 1):
        points[room].x_px = -77
        result = library.make_result(None, None, defects, points)
        result.point_capacity = room
        status = library.lib.ndp_rt_inspector_inspect(handle, library.make_image(image, "GREY8"), result)
        assert library.name(status) == "BUFFER_TOO_SMALL"
        assert f"point_capacity: expected {count}, the points of all outlines, got {room}" in library.last_error
        assert (result.point_count, result.defect_count) == (count, len(outlines))
        assert result.score == expected.score and points[room].x_px == -77
        found = list_outlines(defects, points, len(outlines))
        assert all(one in ([], other) for one, other in zip(found, outlines, strict=True))
        assert sum(map(len, found)) <= room and (room < len(outlines[0]) or found[0] == outlines[0])


def test_a_short_list_of_defects_has_the_outlines_of_those_in_it(
    library: Library, handle: Any, image: NDArray[np.uint8], expected: Result
) -> None:
    defects, points = library.ffi.new("ndp_rt_defect[]", 2), library.ffi.new("ndp_rt_point[]", POINTS)
    result = library.make_result(None, None, defects, points)
    status = library.lib.ndp_rt_inspector_inspect(handle, library.make_image(image, "GREY8"), result)
    assert library.name(status) == "BUFFER_TOO_SMALL" and "defect_capacity" in library.last_error
    assert list_outlines(defects, points, 2) == list_expected(expected)[:2]


def test_a_good_image_has_no_points(library: Library, handle: Any, options: dict[str, Any]) -> None:
    library.lib.ndp_rt_inspector_set_threshold(handle, 2.0)
    defects, points = library.ffi.new("ndp_rt_defect[]", 2), library.ffi.new("ndp_rt_point[]", 2)
    result = library.make_result(None, None, defects, points)
    result.point_count = 9
    frame = library.make_image(np.zeros((8, 8), np.uint8), "GREY8")
    assert library.lib.ndp_rt_inspector_inspect(handle, frame, result) == 0
    assert (result.defect_count, result.point_count) == (0, 0)
    library.lib.ndp_rt_inspector_set_threshold(handle, options["threshold"])


def test_points_without_defects_or_without_the_flag_are_refused(
    library: Library, handle: Any, tiny_bundle: Path, image: NDArray[np.uint8]
) -> None:
    defects, points = library.ffi.new("ndp_rt_defect[]", 2), library.ffi.new("ndp_rt_point[]", 2)
    frame = library.make_image(image, "GREY8")

    def refuse(opened: Any, result: Any, words: str) -> None:
        status = library.lib.ndp_rt_inspector_inspect(opened, frame, result)
        assert library.name(status) == "INPUT" and words in library.last_error

    refuse(handle, library.make_result(None, None, None, points), "points: expected `defects` beside it")
    short = library.make_result(None, None, defects, points)
    short.defect_struct_size = OLD_DEFECT_BYTES
    refuse(handle, short, "points: expected `defects` beside it, whose defect_struct_size is 80")
    uneven = library.make_result(None, None, defects, points)
    uneven.points = library.ffi.cast("ndp_rt_point *", int(library.ffi.cast("uintptr_t", points)) + 2)
    refuse(handle, uneven, "points: expected an address of ndp_rt_point structs")
    plain = library.open(tiny_bundle, threads=1)
    refuse(plain, library.make_result(None, None, defects, points), "opened with NDP_RT_OPEN_CONTOURS, got one without")
    library.lib.ndp_rt_inspector_close(plain)


@pytest.mark.parametrize("count", [1, 2])
def test_a_program_of_abi_1_2_is_served_as_before(
    library: Library, handle: Any, image: NDArray[np.uint8], expected: Result, count: int
) -> None:
    """Its structs are shorter: nothing is read or written behind their ends."""
    ffi = library.ffi
    defects = [ffi.new("char[]", b"\x55" * (OLD_DEFECT_BYTES * DEFECTS + 8)) for _ in range(count)]
    results = ffi.new("char[]", b"\x55" * (OLD_RESULT_BYTES * count + 16))
    for index in range(count):
        made = library.make_result(None, None, None)
        made.defects, made.defect_capacity = ffi.cast("ndp_rt_defect *", defects[index]), DEFECTS
        made.struct_size, made.defect_struct_size = OLD_RESULT_BYTES, OLD_DEFECT_BYTES
        ffi.memmove(results + index * OLD_RESULT_BYTES, made, OLD_RESULT_BYTES)
    frames = ffi.new("ndp_rt_image[]", [library.make_image(image, "GREY8")[0]] * count)
    status = library.lib.ndp_rt_inspector_inspect_batch(handle, frames, count, ffi.cast("ndp_rt_result *", results))
    assert status == 0, library.last_error
    assert ffi.buffer(results, OLD_RESULT_BYTES * count + 16)[-16:] == b"\x55" * 16
    for index in range(count):
        result = ffi.cast("ndp_rt_result *", results + index * OLD_RESULT_BYTES)
        assert (result.score, result.defect_count) == (expected.score, len(expected.defects))
        for number, other in enumerate(expected.defects):
            one = ffi.cast("ndp_rt_defect *", defects[index] + number * OLD_DEFECT_BYTES)
            box = (one.x_px, one.y_px, one.width_px, one.height_px, one.area_px, one.peak)
            assert box == (other.x_px, other.y_px, other.width_px, other.height_px, other.area_px, other.peak)
        end = OLD_DEFECT_BYTES * len(expected.defects)
        assert ffi.buffer(defects[index], end + 8)[-8:] == b"\x55" * 8


def test_results_of_two_sizes_in_one_batch_are_refused(library: Library, handle: Any, image: NDArray[np.uint8]) -> None:
    frames = library.ffi.new("ndp_rt_image[]", [library.make_image(image, "GREY8")[0]] * 2)
    results = library.ffi.new("ndp_rt_result[]", [library.make_result()[0]] * 2)
    results[1].struct_size = OLD_RESULT_BYTES
    status = library.lib.ndp_rt_inspector_inspect_batch(handle, frames, 2, results)
    assert library.name(status) == "ABI" and library.last_error.startswith(
        "image 1 of the batch: struct_size of result"
    )
