"""How cost grows: the words for given points, and one sweep of each kind with the tiny bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench import sweep
from ndp_rt.bench.contenders.spec import OURS, ContenderSpec
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import InputError


def quiet(line: str) -> None:
    """Progress is for people."""


def make_spec(bundle: Path, **changes: Any) -> ContenderSpec:
    values: dict[str, Any] = {
        "name": "ndp-rt openvino fp32",
        "word": OURS,
        "kind": OURS,
        "bundle": str(bundle),
        "precision": "fp32",
        "batches": (1,),
        "backend": "openvino",
        "plan": "fused",
        "threads": 1,
    }
    return ContenderSpec(**(values | changes))


def make_points(values: list[tuple[int, float]], rate: Any, **more: Any) -> list[dict[str, Any]]:
    points = [
        {"value": value, "images_per_s": per_s, "latency": {"p50_ms": 1e3 / per_s}, **more} for value, per_s in values
    ]
    return sweep.set_efficiency(points, rate)


def per_image(point: dict[str, Any]) -> float:
    return float(point["images_per_s"])


def test_batches_that_bring_nothing_are_said_to() -> None:
    (words,) = sweep.describe_growth("batch", make_points([(1, 40.0), (2, 42.0), (4, 44.0)], per_image))
    assert "costs the same in every batch within 25%" in words


def test_batches_are_followed_to_where_they_stop_paying() -> None:
    points = make_points([(1, 100.0), (2, 180.0), (4, 300.0), (8, 340.0), (16, 345.0)], per_image)
    (words,) = sweep.describe_growth("batch", points)
    assert "more slowly than the batch up to 4" in words and "345 images/s at batch 16, 3.45 times" in words


def test_threads_are_linear_up_to_where_four_fifths_are_lost() -> None:
    points = make_points(
        [(1, 10.0), (2, 19.0), (4, 28.0)], lambda point: float(point["images_per_s"]) / int(point["value"])
    )
    (words,) = sweep.describe_growth("threads", points)
    assert words == "Throughput grows with the threads up to 2 (95% of linear); with 4 it has 70% of linear."


def test_threads_that_are_linear_throughout_are_said_to_be() -> None:
    points = make_points([(1, 10.0), (2, 19.0)], lambda point: float(point["images_per_s"]) / int(point["value"]))
    (words,) = sweep.describe_growth("threads", points)
    assert words.endswith("up to 2 (95% of linear), as far as the cores go.")


def test_streams_are_compared_with_one() -> None:
    (words,) = sweep.describe_growth("streams", make_points([(1, 10.0), (2, 16.0), (4, 15.0)], per_image))
    assert words.startswith("2 streams have the highest throughput, 16 images/s, 1.60 times")


def test_streams_that_bring_nothing_are_said_to() -> None:
    (words,) = sweep.describe_growth("streams", make_points([(1, 36.0), (2, 19.0)], per_image))
    assert words.startswith(
        "One stream with all cores has the highest throughput, 36 images/s; with 2 streams it is 0.53"
    )


def test_sizes_are_said_by_what_a_pixel_costs() -> None:
    def per_pixel(point: dict[str, Any]) -> float:
        return float(point["images_per_s"]) * int(point["value"]) ** 2

    resized = make_points([(256, 36.0), (512, 35.0)], per_pixel, series="inspect")
    tiled = make_points([(256, 36.0), (512, 4.0), (1024, 1.4)], per_pixel, series="inspect_large")
    even = make_points([(256, 36.0), (512, 9.0), (1024, 2.2)], per_pixel, series="inspect_large")
    one, two = sweep.describe_growth("size", [*resized, *tiled])
    assert one.startswith("inspect: 4 times the pixels take 1.03 times as long: the image is resized")
    assert "16 times the pixels take 25.7 times as long" in two and "2.2 times as much at 512 px, and 1.6 times" in two
    (three,) = sweep.describe_growth("size", even)
    assert three.endswith("a pixel costs no more than 1.25 times as much up to 1024 px.")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(
    ("axis", "cores", "values"),
    [
        ("batch", 2, [1, 2, 4]),
        ("threads", 2, [1, 2]),
        ("streams", 1, [1, 2]),
        ("size", 2, [64, 128, 256, 64, 128]),
    ],
)
def test_every_axis_is_measured_and_checked(
    tiny_bundle: Path, axis: str, cores: int, values: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCHES", (1, 2, 4))
    monkeypatch.setattr(sweep, "FACTORS", {"inspect": (1, 2, 4), "inspect_large": (1, 2)})
    found = sweep.measure_sweep(axis, make_spec(tiny_bundle), open_bundle(tiny_bundle), cores, 0.1, quiet)
    assert found["axis"] == axis
    assert [point["value"] for point in found["points"]] == values
    for point in found["points"]:
        assert point["check"]["map_max_abs_difference"] <= point["check"]["allowed"]
        assert point["images_per_s"] > 0 and point["latency"]["p50_ms"] > 0
    assert found["points"][0]["efficiency"] == 1.0
    assert all(isinstance(sentence, str) and sentence for sentence in found["words"])


@pytest.mark.parametrize(("axis", "device"), [("colour", "cpu"), ("threads", "cuda")])
def test_rejects_an_axis_that_is_none(tiny_bundle: Path, axis: str, device: str) -> None:
    with pytest.raises(InputError, match=f"--sweep {'is .colour.' if device == 'cpu' else 'threads is for a CPU'}"):
        sweep.measure_sweep(axis, make_spec(tiny_bundle, device=device), open_bundle(tiny_bundle), 2, 0.1, quiet)


def test_larger_images_show_the_same_texture() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    larger = sweep.enlarge(image, 5)
    assert larger.shape == (5, 5, 3) and larger.flags.c_contiguous
    assert (larger[2:4, 2:4] == image).all() and (larger[4, 4] == image[0, 0]).all()
