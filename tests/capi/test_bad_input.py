"""Arguments that are refused: one status, a sentence, nothing written, and the next call works."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.capi.arguments import SIDE, Arguments, list_pointers
from tests.capi.library import Library

STRUCTS = ("ndp_rt_open_options", "ndp_rt_image", "ndp_rt_result", "ndp_rt_info", "ndp_rt_times")
# Pointers that may be NULL, by function and position, and what the call then returns.
MAY_BE_NULL = {
    ("ndp_rt_runtime_start", 0): "OK",
    ("ndp_rt_runtime_describe", 0): "INPUT",  # with a capacity
    ("ndp_rt_runtime_describe", 2): "OK",
    ("ndp_rt_log_set", 0): "OK",
    ("ndp_rt_log_set", 1): "OK",
    ("ndp_rt_inspector_open", 1): "OK",
    ("ndp_rt_inspector_close", 0): "OK",
    ("ndp_rt_inspector_describe", 3): "OK",
    ("ndp_rt_inspector_submit", 3): "OK",
    ("ndp_rt_inspector_submit", 4): "OK",
    ("ndp_rt_inspector_submit", 5): "OK",
    ("ndp_rt_inspector_cancel", 1): "OK",
}


@pytest.fixture(scope="module")
def handle(library: Library, tiny_bundle: Path) -> Iterator[Any]:
    opened = library.open(tiny_bundle, threads=1)
    yield opened
    assert library.lib.ndp_rt_inspector_close(opened) == 0


@pytest.fixture
def arguments(library: Library, handle: Any, tiny_bundle: Path) -> Iterator[Arguments]:
    made = Arguments(library, handle, tiny_bundle)
    yield made
    assert made.call("ndp_rt_inspector_inspect", made.list_for("ndp_rt_inspector_inspect")) == "OK"  # it works still
    library.lib.ndp_rt_log_set(library.ffi.NULL, library.ffi.NULL, 0)


def test_null_in_every_pointer_argument_of_the_header(arguments: Arguments) -> None:
    library = arguments.library
    pointers = list_pointers(library)
    assert len(pointers) > 30
    for function, position, kind in pointers:
        given = list(arguments.list_for(function))
        given[position] = library.ffi.NULL
        is_handle = position == 0 and kind in ("ndp_rt_inspector *", "ndp_rt_job *")
        expected = MAY_BE_NULL.get((function, position), "HANDLE" if is_handle else "INPUT")
        if expected == "OK":
            assert arguments.call(function, given) == "OK", (function, position, library.last_error)
        else:
            arguments.check_refused(function, expected, "NULL", arguments=given)


def test_null_in_every_pointer_of_the_structs(arguments: Arguments) -> None:
    image, result, options = arguments.image, arguments.result, arguments.options
    image.pixels = arguments.library.ffi.NULL
    arguments.check_refused("ndp_rt_inspector_inspect", "INPUT", "first pixel, got NULL")
    image.pixels = arguments.library.ffi.cast("void *", arguments.pixels.ctypes.data)
    options.batch_size_count = 2
    arguments.check_refused("ndp_rt_inspector_open", "INPUT", "batch_sizes: expected an array")
    for name in ("map", "mask", "defects"):
        setattr(result, name, arguments.library.ffi.NULL)
    for function in ("inspect", "inspect_batch", "inspect_large"):
        called = f"ndp_rt_inspector_{function}"
        assert arguments.call(called, arguments.list_for(called)) == "OK"


def test_two_nulls_to_submit_leave_no_way_to_learn_of_the_end(arguments: Arguments) -> None:
    null = arguments.library.ffi.NULL
    given = [*arguments.list_for("ndp_rt_inspector_submit")[:3], null, null, null]
    arguments.check_refused("ndp_rt_inspector_submit", "INPUT", "got NULL for both", arguments=given)


@pytest.mark.parametrize("kind", STRUCTS)
def test_a_struct_size_of_another_header_is_refused(arguments: Arguments, kind: str) -> None:
    functions = {
        "ndp_rt_open_options": ["inspector_open"],
        "ndp_rt_info": ["inspector_info"],
        "ndp_rt_times": ["timings"],
        "ndp_rt_image": [f"inspector_{name}" for name in ("inspect", "inspect_batch", "inspect_large", "submit")],
        "ndp_rt_result": [f"inspector_{name}" for name in ("inspect", "inspect_batch", "inspect_large", "submit")],
    }
    struct = getattr(arguments, kind.removeprefix("ndp_rt_").removeprefix("open_"))
    size = arguments.library.ffi.sizeof(kind)
    for wrong in (0, 1, 4, size - 1, size + 1, size * 2, 2**32 - 1):
        struct.struct_size = wrong
        for function in functions[kind]:
            word = "older than your ndp_rt.h" if wrong > size else "Set it before"
            arguments.check_refused(f"ndp_rt_{function}", "ABI", f"got {wrong}.", str(size), word)
    struct.struct_size = size
    if kind == "ndp_rt_result":
        for wrong in (0, 79, 2**31):
            struct.defect_struct_size = wrong
            arguments.check_refused("ndp_rt_inspector_inspect", "ABI", f"got {wrong}.")
        struct.defect_struct_size = arguments.library.ffi.sizeof("ndp_rt_defect")


IMAGES = [
    ({"width_px": 0}, "1 or more, got 0 and"),
    ({"height_px": 0}, "and 0."),
    ({"width_px": -1}, "got -1 and"),
    ({"height_px": -(2**31)}, "and a height of 1 or more, got"),
    ({"width_px": 65536, "height_px": 32768, "stride_bytes": 65536}, "Pass it in parts"),  # 2^31 pixels
    ({"width_px": 2**31 - 1, "height_px": 2**31 - 1, "stride_bytes": 2**62}, "Pass it in parts"),
    ({"width_px": 2**31 - 1, "height_px": 1, "stride_bytes": 2**31}, "16384"),  # one less: too large to resize
    ({"width_px": 16385, "height_px": 1, "stride_bytes": 16385}, "16384"),
    ({"stride_bytes": SIDE - 1}, f"or more, got {SIDE - 1}."),
    ({"stride_bytes": 0}, "or more, got 0."),
    ({"stride_bytes": -SIDE}, "Turn images that are stored bottom up"),
    ({"stride_bytes": -(2**63)}, "or more, got"),
    ({"stride_bytes": 2**63 - 1}, "or more, got"),
    ({"stride_bytes": (2**63 - 1) // SIDE}, "within the address space"),
    ({"pixel_format": 0}, "NDP_RT_PIXEL_GREY8, got 0."),
    ({"pixel_format": 9}, "NDP_RT_PIXEL_GREY8"),
    ({"pixel_format": 63}, "NDP_RT_PIXEL_GREY8, got 63."),
    ({"pixel_format": 2**32 - 1}, "NDP_RT_PIXEL_GREY8, got 4294967295."),
    *(({"pixel_format": number}, "Demosaic it") for number in (64, 65, 66, 67)),
    ({"pixel_format": 68}, "NDP_RT_PIXEL_GREY8, got 68."),
    ({"pixel_format": 3}, "120, the bytes of a row"),  # RGB needs three times the stride
    ({"pixel_format": 2, "stride_bytes": 2 * SIDE + 1}, "expected even ones"),
    ({"memory": 2}, "NDP_RT_MEMORY_CUDA, got 2"),
    ({"memory": 1}, "CPU"),
]


@pytest.mark.parametrize("function", ["inspect", "inspect_batch", "submit", "set_reference"])
@pytest.mark.parametrize(("fields", "words"), IMAGES, ids=[str(fields) for fields, _ in IMAGES])
def test_images_that_are_refused(arguments: Arguments, function: str, fields: dict[str, int], words: str) -> None:
    result = arguments.result
    for name in ("map", "mask"):  # sizes of their own would be refused first
        setattr(result, name, arguments.library.ffi.NULL)
    for name, value in fields.items():
        setattr(arguments.image, name, value)
    if function == "submit" and words in ("16384", "CPU"):  # these are seen where the image's turn comes
        library = arguments.library
        assert library.lib.ndp_rt_inspector_submit(*arguments.list_for("ndp_rt_inspector_submit")) == 0
        status = library.lib.ndp_rt_job_wait(arguments.job[0], -1)
        arguments.job[0] = library.ffi.NULL
        assert library.name(status) == "INPUT" and words in library.last_error
    else:
        arguments.check_refused(f"ndp_rt_inspector_{function}", "INPUT", words)
    replace(arguments.image, arguments.library.make_image(arguments.pixels, "GREY8"))


@pytest.mark.parametrize("function", ["inspect", "inspect_batch", "inspect_large", "set_reference"])
def test_a_deadline_is_refused_where_nothing_waits_in_the_queue(arguments: Arguments, function: str) -> None:
    arguments.image.deadline_ms = 1
    words = "deadline_ms of image: expected 0 but in ndp_rt_inspector_submit, got 1"
    arguments.check_refused(f"ndp_rt_inspector_{function}", "INPUT", words)
    arguments.image.deadline_ms = 0


def replace(target: Any, source: Any) -> None:
    target[0] = source[0]


RESULTS: list[tuple[dict[str, int], str, str]] = [
    ({"map_stride_bytes": SIDE * 4 - 4}, "INPUT", "expected 160 or more"),
    ({"map_stride_bytes": SIDE * 4 + 2}, "INPUT", "multiples of 4"),
    ({"map_stride_bytes": -SIDE * 4}, "INPUT", "got -160 and map"),
    ({"map_stride_bytes": 2**63 - 4}, "INPUT", "map_stride_bytes"),
    ({"map_stride_bytes": 2**57, "map_capacity_bytes": 2**63 - 1}, "INPUT", "within the address space"),
    ({"mask_stride_bytes": 0}, "INPUT", "got 0 and mask"),
    ({"mask_stride_bytes": SIDE - 1}, "INPUT", "got 39 and mask"),
    ({"reserved": 7}, "INPUT", "reserved of result: expected 0, got 7"),
    ({"map_stride_bytes": 3, "mask_capacity_bytes": 0}, "INPUT", "got 3 and map"),
    ({"map_capacity_bytes": SIDE * SIDE * 4 - 1}, "BUFFER_TOO_SMALL", "expected 6400 for 40 x 40 pixels"),
    ({"map_capacity_bytes": 0}, "BUFFER_TOO_SMALL", "map_capacity_bytes: expected 6400 for 40 x 40 pixels, got 0."),
    ({"map_capacity_bytes": -1}, "BUFFER_TOO_SMALL", "40 x 40 pixels, got -1."),
    ({"mask_capacity_bytes": SIDE * SIDE - 1}, "BUFFER_TOO_SMALL", "expected 1600"),
    (
        {"mask_capacity_bytes": 0, "map_capacity_bytes": 0},
        "BUFFER_TOO_SMALL",
        "map_capacity_bytes: expected 6400 for 40 x 40 pixels, got 0.",
    ),
]


@pytest.mark.parametrize("function", ["inspect", "inspect_batch", "inspect_large", "submit"])
@pytest.mark.parametrize(("fields", "status", "words"), RESULTS, ids=[str(fields) for fields, _, _ in RESULTS])
def test_results_that_are_refused(
    arguments: Arguments, function: str, fields: dict[str, int], status: str, words: str
) -> None:
    result, good = arguments.result, arguments.library.ffi.new("ndp_rt_result *", arguments.result[0])
    for name, value in fields.items():
        setattr(result, name, value)
    arguments.check_refused(f"ndp_rt_inspector_{function}", status, words)
    replace(result, good)


def test_addresses_that_are_not_aligned_are_refused(arguments: Arguments) -> None:
    ffi, result, image = arguments.library.ffi, arguments.library.ffi.cast, arguments.image
    arguments.result.map = result("float *", arguments.map.ctypes.data + 2)
    arguments.check_refused("ndp_rt_inspector_inspect", "INPUT", "multiples of 4")
    arguments.result.map = ffi.NULL
    arguments.result.defects = result("ndp_rt_defect *", int(result("uintptr_t", arguments.defects)) + 4)
    arguments.check_refused("ndp_rt_inspector_inspect", "INPUT", "expected an address of ndp_rt_defect structs")
    arguments.result.defects = ffi.NULL
    image.pixel_format, image.width_px = arguments.library.lib.NDP_RT_PIXEL_GREY16, 8
    image.pixels = result("void *", arguments.pixels.ctypes.data + 1)
    arguments.check_refused("ndp_rt_inspector_inspect", "INPUT", "expected even ones for 16 bits")
    image.pixels = result("void *", arguments.pixels.ctypes.data)


@pytest.mark.parametrize("function", ["inspect", "inspect_batch", "inspect_large"])
def test_buffers_that_are_too_small_are_told_the_needed_sizes(arguments: Arguments, function: str) -> None:
    result, called = arguments.result, f"ndp_rt_inspector_{function}"
    result.map_capacity_bytes = result.mask_capacity_bytes = 10
    result.mask_stride_bytes = 64
    assert arguments.call(called, arguments.list_for(called)) == "BUFFER_TOO_SMALL"
    assert (result.map_needed_bytes, result.mask_needed_bytes) == (SIDE * SIDE * 4, (SIDE - 1) * 64 + SIDE)
    assert (arguments.map == -3).all() and (arguments.mask == 7).all()
    result.map_capacity_bytes, result.mask_stride_bytes, result.mask_capacity_bytes = SIDE * SIDE * 4, SIDE, SIDE * SIDE


def test_a_list_of_defects_that_is_too_small_holds_the_highest_peaks(library: Library, tiny_bundle: Path) -> None:
    options = {"threads": 1, "threshold": 0.0, "flags": library.lib.NDP_RT_OPEN_THRESHOLD}
    handle = library.open(tiny_bundle, **options)
    pixels, room = (np.indices((SIDE, SIDE)).sum(axis=0) % 16 < 8).astype(np.uint8) * 255, 100
    first, second = (library.ffi.new("ndp_rt_defect[]", room) for _ in range(2))
    image, result = library.make_image(pixels, "GREY8"), library.make_result(None, None, first)
    assert library.lib.ndp_rt_inspector_inspect(handle, image, result) == 0
    count, score = result.defect_count, result.score
    assert 1 <= count <= room
    result = library.make_result(None, None, second)
    result.defect_capacity, second[count - 1].peak = count - 1, -77.0
    status = library.lib.ndp_rt_inspector_inspect(handle, image, result)
    assert library.name(status) == "BUFFER_TOO_SMALL" and f"defects, got {count - 1}." in library.last_error
    assert (result.defect_count, result.score, result.is_defect) == (count, score, 1)
    assert second[count - 1].peak == -77.0
    assert [second[i].peak for i in range(count - 1)] == [first[i].peak for i in range(count - 1)]
    library.lib.ndp_rt_inspector_close(handle)


OVERLAPS = [(-1, "0 to half a tile"), (-(2**31), "0 to half a tile"), (33, "33"), (2**31 - 1, "2147483647")]


@pytest.mark.parametrize(("overlap_px", "words"), OVERLAPS)
def test_overlaps_that_are_refused(arguments: Arguments, overlap_px: int, words: str) -> None:
    given = arguments.list_for("ndp_rt_inspector_inspect_large")
    given[2] = overlap_px
    arguments.check_refused("ndp_rt_inspector_inspect_large", "INPUT", words, arguments=given)


def test_one_bad_image_keeps_a_batch_from_running(arguments: Arguments) -> None:
    library, ffi = arguments.library, arguments.library.ffi
    images = ffi.new("ndp_rt_image[3]", [arguments.image[0]] * 3)
    maps = [np.full((SIDE, SIDE), -3, np.float32) for _ in range(3)]
    results = ffi.new("ndp_rt_result[3]", [library.make_result(one)[0] for one in maps])
    images[2].width_px = 0
    call, times = library.lib.ndp_rt_inspector_inspect_batch, library.make("ndp_rt_times")
    assert library.lib.ndp_rt_timings(arguments.handle, times) == 0
    assert library.name(call(arguments.handle, images, 3, results)) == "INPUT"
    assert library.last_error.startswith("image 2 of the batch: image: expected a width")
    assert all((one == -3).all() for one in maps)
    images[2].width_px, results[1].map_capacity_bytes = SIDE, 100
    assert library.name(call(arguments.handle, images, 3, results)) == "BUFFER_TOO_SMALL"
    assert library.last_error.startswith("image 1 of the batch: map_capacity_bytes: expected 6400")
    assert library.lib.ndp_rt_timings(arguments.handle, arguments.times) == 0
    assert arguments.times.inspection_count == times.inspection_count
    assert arguments.times.failure_count == times.failure_count
    for count in (2**32, 2**64 - 1):
        assert library.name(call(arguments.handle, images, count, results)) == "INPUT"
        assert f"count: expected up to 4294967295, got {count}" in library.last_error
    assert library.name(call(arguments.handle, ffi.NULL, 0, ffi.NULL)) == "OK"


NUMBERS: list[tuple[str, int, Any, str]] = [
    ("ndp_rt_inspector_warm_up", 1, 0, "count: expected 1 or more, got 0"),
    ("ndp_rt_inspector_warm_up", 1, -(2**31), "count: expected 1 or more, got -2147483648"),
    ("ndp_rt_inspector_set_threshold", 1, float("nan"), "nan"),
    ("ndp_rt_log_set", 2, 0, "got 0."),
    ("ndp_rt_log_set", 2, -10, "got -10."),
]


@pytest.mark.parametrize(("function", "position", "value", "words"), NUMBERS)
def test_numbers_that_are_refused(arguments: Arguments, function: str, position: int, value: Any, words: str) -> None:
    given = arguments.list_for(function)
    given[position] = value
    arguments.check_refused(function, "INPUT", words, arguments=given)


def test_text_that_does_not_fit_is_not_written(arguments: Arguments) -> None:
    for function in ("ndp_rt_runtime_describe", "ndp_rt_inspector_describe"):
        given = arguments.list_for(function)
        assert arguments.call(function, given) == "OK"
        needed = arguments.needed[0]
        assert needed == len(arguments.library.ffi.string(arguments.text)) + 1
        arguments.text[0 : needed + 1] = b"." * (needed + 1)
        for capacity in (0, 1, needed - 1):
            given[-2] = capacity
            arguments.check_refused(function, "BUFFER_TOO_SMALL", f"{needed} bytes", arguments=given)
        given[-2] = needed
        assert arguments.call(function, given) == "OK" and arguments.text[needed] == b"."


def test_failing_calls_leave_nothing_behind(arguments: Arguments) -> None:
    from ndp_rt.capi import calls  # of the library, which is loaded by now

    def fail_everywhere() -> None:
        for function, position, _ in list_pointers(arguments.library):
            if MAY_BE_NULL.get((function, position)) != "OK":
                given = list(arguments.list_for(function))
                given[position] = arguments.library.ffi.NULL
                arguments.call(function, given)
        arguments.image.memory = 1
        arguments.call("ndp_rt_inspector_inspect", arguments.list_for("ndp_rt_inspector_inspect"))
        arguments.image.memory = 0
        given = [b"/nowhere.ndp", *arguments.list_for("ndp_rt_inspector_open")[1:]]
        arguments.call("ndp_rt_inspector_open", given)

    def count_after(call: Callable[[], None]) -> int:
        call()
        gc.collect()
        return len(gc.get_objects())

    opened_count = len(calls.inspectors)
    counts = [count_after(fail_everywhere) for _ in range(5)]
    assert counts[-1] <= counts[1] + 5, counts
    assert len(calls.inspectors) == opened_count
